#include "core/exchange.h"

namespace mlip {
namespace {

thread_local Exchange* active_exchange = nullptr;

}  // namespace

ExchangeScope::ExchangeScope(Exchange* exchange) : previous_(active_exchange) { active_exchange = exchange; }
ExchangeScope::~ExchangeScope() { active_exchange = previous_; }
Exchange* ExchangeScope::active() { return active_exchange; }

}  // namespace mlip

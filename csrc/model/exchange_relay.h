// Keeps an engine's communication on the engine's thread.
//
// On a GPU the backward pass, and with it `mlip::ghost_gather_backward`, runs on a thread of torch's own, while MPI, as
// LAMMPS starts it, may be called from the thread that started it alone.
#pragma once

#include <functional>
#include <memory>

#include "core/exchange.h"

namespace mlip {

/// A thread for the model, beside the engine's. It starts with the first run and lives as long as this object: a new
/// one for each step would set up its pools of threads and memory anew.
class ExchangeRelay {
 public:
  ExchangeRelay();
  ~ExchangeRelay();
  ExchangeRelay(const ExchangeRelay&) = delete;
  ExchangeRelay& operator=(const ExchangeRelay&) = delete;

  /// Runs `body` on that thread, with an Exchange that any thread may call: the calls come back to this thread, which
  /// waits for them, and are carried out by `engine`. Returns when `body` has; what either throws reaches who called
  /// it.
  void run(Exchange& engine, const std::function<void(Exchange&)>& body);

 private:
  class Worker;
  std::unique_ptr<Worker> worker_;
};

}  // namespace mlip

// Keeps an engine's communication on the engine's thread.
//
// On a GPU the backward pass, and with it `mlip::ghost_gather_backward`, runs on a thread of torch's own, while MPI, as
// LAMMPS starts it, may be called from the thread that started it alone.
#pragma once

#include <functional>

#include "core/exchange.h"

namespace mlip {

/// Runs `body` on another thread, with an Exchange that any thread may call: the calls come back to this thread, which
/// waits for them, and are carried out by `engine`. Returns when `body` has; what either throws reaches who called it.
void exchange_on_this_thread(Exchange& engine, const std::function<void(Exchange&)>& body);

}  // namespace mlip

// Releases Python's global interpreter lock for a scope, if this process has a Python and this thread holds it.
//
// torch's autograd refuses to run under the lock. Engines do call us under it: OpenMM's Python wrapper keeps it
// in some calls (Context creation, computeCurrentPressure). The core does not link Python, so its functions are
// weak symbols: null in a process without an interpreter, such as the lmp executable.
#pragma once

extern "C" {
struct _ts;  // PyThreadState
int Py_IsInitialized() __attribute__((weak));
int PyGILState_Check() __attribute__((weak));
_ts* PyEval_SaveThread() __attribute__((weak));
void PyEval_RestoreThread(_ts*) __attribute__((weak));
}

namespace mlip {

class PythonGilRelease {
 public:
  PythonGilRelease() {
    if (Py_IsInitialized && Py_IsInitialized() && PyGILState_Check()) state_ = PyEval_SaveThread();
  }
  ~PythonGilRelease() {
    if (state_) PyEval_RestoreThread(state_);
  }
  PythonGilRelease(const PythonGilRelease&) = delete;
  PythonGilRelease& operator=(const PythonGilRelease&) = delete;

 private:
  _ts* state_ = nullptr;
};

}  // namespace mlip

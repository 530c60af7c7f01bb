// std::condition_variable that any libstdc++ since GCC 4.4 has. GCC 12 gave `wait` a second version; a library that was
// linked with that one does not load where libstdc++ is older, such as in RHEL 9. It differs in an exception
// specification alone. For all that wait: csrc/model, and vesin by CMakeLists.txt.
#pragma once

#include <condition_variable>

#ifdef __GLIBCXX__
__asm__(
    ".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE,"
    "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
#endif

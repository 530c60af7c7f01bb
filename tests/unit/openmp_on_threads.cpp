// The part of OpenMP that at::parallel_for calls, on std::thread, for the build under the thread sanitizer alone.
//
// The threads of libgomp wait for each other unseen by the sanitizer, so that every parallel loop would look like a
// race. How a std::thread starts and ends it sees. Linked into libmlip.so and hidden there: torch keeps its libgomp,
// which runs on one thread in these tests (OMP_THREAD_LIMIT, CMakeLists.txt) while at::get_num_threads() says what was
// set.
#include <thread>
#include <vector>

extern "C" {

int omp_get_max_threads();  // libgomp's: what at::set_num_threads set

#pragma GCC visibility push(hidden)

static thread_local int thread_number = 0;
static thread_local int team_size = 1;

int omp_get_thread_num() { return thread_number; }
int omp_get_num_threads() { return team_size; }

void GOMP_parallel(void (*body)(void*), void* data, unsigned n_asked, unsigned) {
  const int n_threads = n_asked > 0 ? static_cast<int>(n_asked) : omp_get_max_threads();
  const auto run = [=](int number) {
    thread_number = number;
    team_size = n_threads;
    body(data);
    thread_number = 0;
    team_size = 1;
  };
  std::vector<std::thread> others;
  for (int number = 1; number < n_threads; ++number) others.emplace_back(run, number);
  run(0);
  for (std::thread& other : others) other.join();
}

#pragma GCC visibility pop
}

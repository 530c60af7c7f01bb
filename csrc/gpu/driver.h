// NVIDIA's driver (libcuda.so.1): the functions of cuda.h that contexts and kernels need.
#pragma once

namespace mlip::gpu {

/// Each returns 0 or the number of an error, for `check`.
struct Driver {
  int (*device)(int* device, int ordinal);
  int (*attribute)(int* value, int attribute, int device);
  int (*retain_primary_context)(void** context, int device);
  int (*push_context)(void* context);
  int (*pop_context)(void** context);
  int (*context_device)(int* device);
  int (*load)(void** module, const void* image);
  int (*function)(void** function, void* module, const char* name);
  int (*launch)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra);
  int (*error_text)(int code, const char** text);

  /// @param what was done. @throws Error with the driver's words unless `code` is 0.
  void check(int code, const char* what) const;
};

/// The one in this process; null where there is none. @throws Error for a driver that lacks a function.
const Driver* driver();

}  // namespace mlip::gpu

// Which compiled instruction set runs (see edge_tensor_product_kernels.h).
#include "operators/edge_tensor_product/edge_tensor_product_kernels.h"

#include <atomic>
#include <cstring>

namespace mlip {

extern const InstructionSet portable_instruction_set;
#ifdef MLIP_X86
extern const InstructionSet avx2_instruction_set;
extern const InstructionSet avx512_instruction_set;
#endif
#ifdef MLIP_PORTABLE_WIDE
extern const InstructionSet portable_wide_instruction_set;
#endif

namespace {
const InstructionSet* const compiled[] = {
#ifdef MLIP_X86
    &avx512_instruction_set,
    &avx2_instruction_set,
#endif
    &portable_instruction_set,
#ifdef MLIP_PORTABLE_WIDE
    &portable_wide_instruction_set,
#endif
};
std::atomic<const InstructionSet*> chosen{nullptr};
}  // namespace

const InstructionSet* const* instruction_sets(int& count) {
  count = static_cast<int>(sizeof(compiled) / sizeof(compiled[0]));
  return compiled;
}

const InstructionSet& instruction_set() {
  if (const InstructionSet* set = chosen.load()) return *set;
  for (const InstructionSet* set : compiled)
    if (set->supported()) {
      chosen.store(set);
      return *set;
    }
  return portable_instruction_set;
}

bool use_instruction_set(const char* name) {
  for (const InstructionSet* set : compiled)
    if (std::strcmp(set->name, name) == 0 && set->supported()) {
      chosen.store(set);
      return true;
    }
  return false;
}

}  // namespace mlip

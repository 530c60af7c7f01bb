// How torch multiplies float32 matrices while a model runs: exactly, or in a GPU's TF32, which keeps 10 bits of
// mantissa.
//
// torch has one setting for the process. Scripts and training frameworks change it
// (`torch.set_float32_matmul_precision("high")`), which would change a model's forces by a thousandth, unseen.
#pragma once

#include <string>

namespace mlip {

enum class Products { full, tf32 };

/// @throws Error for a name that is neither "full" nor "tf32"
Products parse_products(const std::string& name);
const char* to_string(Products products);

/// torch's setting for the life of an object; then it is what it was. Objects in other threads that want another
/// setting wait.
class ProductsScope {
 public:
  explicit ProductsScope(Products wanted);
  ~ProductsScope();
  ProductsScope(const ProductsScope&) = delete;
  ProductsScope& operator=(const ProductsScope&) = delete;
};

}  // namespace mlip

"""Write C++ that defines the text of each given file: python embed_text.py OUTPUT FILE...

`edge_harmonics.cu` becomes `mlip::gpu::edge_harmonics_text`. `#pragma once` and includes are left out: these texts are
joined into one before they are compiled.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

output, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
lines = [f"// Written by {Path(__file__).name}.", '#include "gpu/texts.h"', "", "namespace mlip::gpu {"]
for file in files:
    text = re.sub(r"^#(pragma once|include.*)\n", "", file.read_text(), flags=re.MULTILINE)
    lines.append(f'const char* const {file.stem}_text = R"source({text})source";')
lines += ["}  // namespace mlip::gpu", ""]
output.write_text("\n".join(lines))

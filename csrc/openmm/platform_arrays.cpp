#include "platform_arrays.h"

#include <openmm/Platform.h>
#include <openmm/common/ContextSelector.h>
#include <openmm/cuda/CudaPlatform.h>
#include <openmm/opencl/OpenCLPlatform.h>

#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "core/units.h"

using OpenMM::ArrayInterface;
using OpenMM::ComputeContext;
using OpenMM::ContextSelector;
using OpenMM::mm_int4;

namespace mlip_openmm {
namespace {

// In the language that OpenMM's platforms share. A particle has its place in OpenMM's arrays (`slot`), which changes
// from time to time, and its number in the System (`particle_of`).
const char* const kernels = R"(
KERNEL void readPositions(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
                          GLOBAL const int4* RESTRICT cellOffsets, GLOBAL const int* RESTRICT particleOf,
                          GLOBAL const int* RESTRICT modelAtoms, GLOBAL const double* RESTRICT box,
                          GLOBAL double* RESTRICT positions) {
    for (int slot = GLOBAL_ID; slot < NUM_PARTICLES; slot += GLOBAL_SIZE) {
        const int atom = modelAtoms[particleOf[slot]];
        if (atom < 0)
            continue;
        const real4 p = posq[slot];
        double x = p.x, y = p.y, z = p.z;
#ifdef MIXED_PRECISION
        const real4 c = correction[slot];
        x += c.x;
        y += c.y;
        z += c.z;
#endif
        const int4 cell = cellOffsets[slot];
        x -= cell.x*box[0] + cell.y*box[3] + cell.z*box[6];
        y -= cell.x*box[1] + cell.y*box[4] + cell.z*box[7];
        z -= cell.x*box[2] + cell.y*box[5] + cell.z*box[8];
        positions[3*atom] = LENGTH*x;
        positions[3*atom+1] = LENGTH*y;
        positions[3*atom+2] = LENGTH*z;
    }
}

KERNEL void addForces(GLOBAL const double* RESTRICT forces, GLOBAL const int* RESTRICT particleOf,
                      GLOBAL const int* RESTRICT modelAtoms, GLOBAL mm_long* RESTRICT sums) {
    for (int slot = GLOBAL_ID; slot < NUM_PARTICLES; slot += GLOBAL_SIZE) {
        const int atom = modelAtoms[particleOf[slot]];
        if (atom < 0)
            continue;
        for (int axis = 0; axis < 3; axis++)
            sums[slot + axis*PADDED_NUM_PARTICLES] += (mm_long) (FORCE*forces[3*atom+axis]*0x100000000);
    }
}
)";
constexpr int positions_argument = 6;
constexpr int forces_argument = 0;

/// The one ComputeContext of a platform's data. CudaContext and OpenCLContext derive from ComputeContext alone, so
/// their addresses are its addresses; their own headers, which would tell the compiler so, need CUDA's and OpenCL's.
template <typename PlatformData>
ComputeContext* only_context(void* data) {
  const auto& contexts = reinterpret_cast<PlatformData*>(data)->contexts;
  return contexts.size() == 1 ? reinterpret_cast<ComputeContext*>(contexts[0]) : nullptr;
}

std::string literal(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17e", value);
  return text;
}

}  // namespace

std::unique_ptr<PlatformArrays> PlatformArrays::of(OpenMM::ContextImpl& context, const std::vector<int>& atoms) {
  const OpenMM::Platform& platform = context.getPlatform();
  ComputeContext* compute = nullptr;
  std::string cuda_device;
  if (platform.getName() == "CUDA") {
    compute = only_context<OpenMM::CudaPlatform::PlatformData>(context.getPlatformData());
    if (compute != nullptr)
      cuda_device = std::string("cuda:").append(
          platform.getPropertyValue(context.getOwner(), OpenMM::CudaPlatform::CudaDeviceIndex()));
  } else if (platform.getName() == "OpenCL") {
    compute = only_context<OpenMM::OpenCLPlatform::PlatformData>(context.getPlatformData());
  }
  if (compute == nullptr || !compute->getSupportsDoublePrecision()) return nullptr;
  return std::unique_ptr<PlatformArrays>(new PlatformArrays(*compute, atoms, std::move(cuda_device)));
}

PlatformArrays::PlatformArrays(ComputeContext& context, const std::vector<int>& atoms, std::string cuda_device)
    : context_(context),
      cuda_device_(std::move(cuda_device)),
      n_atoms_(atoms.size()),
      model_atoms_(new_array(static_cast<std::size_t>(context.getNumAtoms()), sizeof(int), "mlipAtoms")),
      cell_offsets_(new_array(context.getPosCellOffsets().size(), sizeof(mm_int4), "mlipCellOffsets")),
      box_(new_array(9, sizeof(double), "mlipBox")) {
  const ContextSelector current(context_);
  std::vector<int> model_atoms(static_cast<std::size_t>(context_.getNumAtoms()), -1);
  for (std::size_t k = 0; k < atoms.size(); ++k) model_atoms[static_cast<std::size_t>(atoms[k])] = static_cast<int>(k);
  model_atoms_.upload(model_atoms);

  constexpr auto units = mlip::units::openmm_units;
  std::map<std::string, std::string> defines = {
      {"NUM_PARTICLES", std::to_string(context_.getNumAtoms())},
      {"PADDED_NUM_PARTICLES", std::to_string(context_.getPaddedNumAtoms())},
      {"LENGTH", literal(units.length_in_angstrom)},
      {"FORCE", literal(units.length_in_angstrom / units.energy_in_ev)},
  };
  if (context_.getUseMixedPrecision()) defines["MIXED_PRECISION"] = "1";
  const OpenMM::ComputeProgram program = context_.compileProgram(kernels, defines);
  read_ = program->createKernel("readPositions");
  read_->addArg(context_.getPosq());
  read_->addArg(context_.getUseMixedPrecision() ? context_.getPosqCorrection() : context_.getPosq());
  read_->addArg(cell_offsets_);
  read_->addArg(context_.getAtomIndexArray());
  read_->addArg(model_atoms_);
  read_->addArg(box_);
  read_->addArg();
  add_ = program->createKernel("addForces");
  add_->addArg();
  add_->addArg(context_.getAtomIndexArray());
  add_->addArg(model_atoms_);
  add_->addArg(context_.getLongForceBuffer());
  done_ = context_.createEvent();
}

ArrayInterface& PlatformArrays::new_array(std::size_t size, int element_size, const char* name) {
  const ContextSelector current(context_);
  arrays_.emplace_back(context_.createArray());
  arrays_.back()->initialize(context_, size, element_size, name);
  return *arrays_.back();
}

void PlatformArrays::send_images() {
  // They change when OpenMM sorts its particles anew, every few hundred steps, and when positions are set; the box at
  // any step of a barostat.
  const std::vector<mm_int4>& offsets = context_.getPosCellOffsets();
  const std::size_t bytes = offsets.size() * sizeof(mm_int4);
  if (sent_offsets_.size() != offsets.size() || std::memcmp(sent_offsets_.data(), offsets.data(), bytes) != 0) {
    cell_offsets_.upload(offsets);
    sent_offsets_ = offsets;
  }
  OpenMM::Vec3 rows[3];
  context_.getPeriodicBoxVectors(rows[0], rows[1], rows[2]);
  std::vector<double> box;
  for (const OpenMM::Vec3& row : rows)
    for (int axis = 0; axis < 3; ++axis) box.push_back(row[axis]);
  if (box != sent_box_) {
    box_.upload(box);
    sent_box_ = box;
  }
}

void PlatformArrays::wait() {
  done_->enqueue();
  done_->wait();
}

void PlatformArrays::write_positions(double* address) {
  const ContextSelector current(context_);
  send_images();
  read_->setArg(positions_argument, address);
  read_->execute(context_.getNumAtoms());
  wait();
}

void PlatformArrays::write_positions(std::vector<double>& positions) {
  positions.resize(3 * n_atoms_);
  if (staging_ == nullptr) staging_ = &new_array(3 * n_atoms_, sizeof(double), "mlipStaging");
  const ContextSelector current(context_);
  send_images();
  read_->setArg(positions_argument, *staging_);
  read_->execute(context_.getNumAtoms());
  staging_->download(positions);
}

void PlatformArrays::add_forces(const double* address) {
  const ContextSelector current(context_);
  add_->setArg(forces_argument, address);
  add_->execute(context_.getNumAtoms());
}

void PlatformArrays::add_forces(const std::vector<double>& forces) {
  const ContextSelector current(context_);
  staging_->upload(forces);
  add_->setArg(forces_argument, *staging_);
  add_->execute(context_.getNumAtoms());
}

}  // namespace mlip_openmm

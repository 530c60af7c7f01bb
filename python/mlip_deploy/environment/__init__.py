"""What is installed: versions and devices, and building the pair style for a LAMMPS of one's own."""

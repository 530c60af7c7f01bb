// What LAMMPS's lammpsplugin.h declares, which not every LAMMPS installs: how a plugin describes a style.
#pragma once

extern "C" {

/// Creates a style: LAMMPS* -> style*.
using StyleFactory = void*(void*);
using StyleFactoryWithArguments = void*(void*, int, char**);

struct Plugin {
  const char* version;
  const char* style;
  const char* name;
  const char* info;
  const char* author;
  union {
    StyleFactory* v1;
    StyleFactoryWithArguments* v2;
  } creator;
  void* handle;
};

/// (Plugin*, LAMMPS*)
using RegisterPlugin = void(void*, void*);

/// The one function that a plugin exports: (LAMMPS*, handle of the library, RegisterPlugin*).
using PluginInit = void(void*, void*, void*);

}  // extern "C"

//! The shared library, as its hosts see it.

mod c_host;
mod cmake_package;
mod cpp_host;
mod plugin;

//! The shared library, as its hosts see it.

mod c_host;
mod cmake_package;
mod common;
mod cpp_host;
mod plugin;

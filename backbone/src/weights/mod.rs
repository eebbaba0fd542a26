//! Weight files of every framework, read and written.

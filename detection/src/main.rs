//! `detect`: Mask R-CNN on the command line.

fn main() {}

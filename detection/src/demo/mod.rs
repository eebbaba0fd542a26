//! A small data set with known masks, made out of photographs.

//! Packed execution (`FeatureMap::Patches`) is exact: on every layer and model
//! it equals the masked-dense reference (`FeatureMap::Masked`) in outputs, in
//! the gradients of the input and of every parameter, and in running
//! statistics; and the reference equals what plain tensor operations give.

mod boundary;
mod element_types;
mod freezing;
mod layers;
mod mask_token;
mod models;
mod reference;
mod support;
mod up_sampling;

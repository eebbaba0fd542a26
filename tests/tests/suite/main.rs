//! What crosses crates: ours beside what the references compute.

mod classification_data;
mod classification_timm;
mod compare;
mod data_reduced;
mod data_torchvision;
mod detection_coco_benchmark;
mod detection_coco_eval;
mod detection_data;
mod detection_golden;
mod detection_ops;
mod detection_plugin;
mod detection_torchvision;
mod features;
mod forward_command;
mod golden;
#[cfg(torch_writes_pt2)]
mod graph_parity;
mod hub;
mod optim_reference;
mod other_programs;
mod own_cnn;
#[cfg(torch_writes_pt2)]
mod pt2_archive;
mod python_package;
mod shards;
mod tensorboard;
mod timm_parity;
mod torch_range;
mod torchscript;
mod weights_formats;

//! detectron2's names: those in memory, but for the backbone's.

use backbone::models::Family;
use backbone::weights::Naming;

use super::{BOTTOM_UP, is_output_norm};

/// What the tensor `memory` is called in detectron2; `None` if it isn't the
/// model's. Backbones that detectron2 doesn't have keep their own names.
pub(super) fn to(family: Family, memory: &str) -> Option<String> {
    match memory.strip_prefix(BOTTOM_UP) {
        Some(canonical) if Naming::Detectron2.has(family) && !is_output_norm(canonical) => {
            let name = Naming::Detectron2.to(family, canonical)?;
            Some(format!("{BOTTOM_UP}{name}"))
        }
        _ => Some(memory.to_owned()),
    }
}

//! Weights filled by rule from their names, so that reference numbers need no
//! weight files.

use tch::{Kind, Tensor};

/// Fills tensors by their names; those of integers stay.
pub fn fill(tensors: impl IntoIterator<Item = (String, Tensor)>) {
    fill_scaled(tensors, &[]);
}

/// As [`fill`], with some tensors multiplied, in float32.
pub fn fill_scaled(tensors: impl IntoIterator<Item = (String, Tensor)>, scales: &[(&str, f64)]) {
    tch::no_grad(|| {
        for (name, mut tensor) in tensors {
            if tensor.is_floating_point() {
                let scale = scales.iter().find(|(scaled, _)| *scaled == name);
                let scale = scale.map_or(1.0, |(_, scale)| *scale);
                tensor.copy_(&(weight(&name, &tensor.size()) * scale));
            }
        }
    });
}

/// The tensor called `name`: uniform draws from a hash of name and index,
/// scaled by what the tensor is for.
pub fn weight(name: &str, shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let seed = u64::from(crc32(name.as_bytes())) << 32;
    let (scale, offset) = scale_and_offset(name, shape);
    let values: Vec<f32> =
        (0..count as u64).map(|index| (offset + scale * uniform(seed | index)) as f32).collect();
    Tensor::from_slice(&values).view(shape).to_kind(Kind::Float)
}

/// The value is `offset + scale · u`.
fn scale_and_offset(name: &str, shape: &[i64]) -> (f64, f64) {
    let centred = |width: f64| (width, -width / 2.0);
    if name.ends_with("running_mean") {
        centred(0.2)
    } else if name.ends_with("running_var") {
        (1.0, 0.5)
    } else if name.ends_with("gamma") {
        (0.5, 0.5)
    } else if name.ends_with("bias") || name.starts_with("mask_tokens.") {
        centred(0.2)
    } else if shape.len() == 1 {
        (1.0, 0.5)
    } else {
        let fan_in: i64 = shape[1..].iter().product();
        centred(2.0 * (3.0 / fan_in as f64).sqrt())
    }
}

/// splitmix64's finaliser, its upper 24 bits as a fraction.
fn uniform(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / (1u64 << 24) as f64
}

/// CRC-32 (IEEE), bit by bit: the names are short.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_check_value() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926);
    }
}

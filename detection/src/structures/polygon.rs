//! Polygons cut by rectangles.

/// The part of `polygon` (x0, y0, x1, y1, …) inside `area` (x1, y1, x2, y2), if it
/// has any extent. Parts that fall apart stay joined along the rectangle's edge,
/// where they enclose nothing.
///
/// "Reentrant polygon clipping" (Sutherland, Hodgman 1974).
pub(super) fn clip_to_rectangle(polygon: &[f64], area: [f64; 4]) -> Option<Vec<f64>> {
    let mut corners: Vec<[f64; 2]> = polygon.chunks_exact(2).map(|xy| [xy[0], xy[1]]).collect();
    for axis in 0..2 {
        corners = clip(&corners, axis, area[axis], 1.0);
        corners = clip(&corners, axis, area[axis + 2], -1.0);
    }
    (signed_area(&corners) != 0.0).then(|| corners.concat())
}

/// The part on one side of the line where coordinate `axis` is `limit`: above it
/// where `sign` is 1, below it where it is −1.
fn clip(corners: &[[f64; 2]], axis: usize, limit: f64, sign: f64) -> Vec<[f64; 2]> {
    let inside = |corner: &[f64; 2]| (corner[axis] - limit) * sign >= 0.0;
    let mut kept = Vec::with_capacity(corners.len() + 2);
    for (at, to) in corners.iter().enumerate() {
        let from = &corners[(at + corners.len() - 1) % corners.len()];
        if inside(from) != inside(to) {
            let share = (limit - from[axis]) / (to[axis] - from[axis]);
            let other = from[1 - axis] + share * (to[1 - axis] - from[1 - axis]);
            kept.push(if axis == 0 { [limit, other] } else { [other, limit] });
        }
        if inside(to) {
            kept.push(*to);
        }
    }
    kept
}

/// The shoelace formula.
fn signed_area(corners: &[[f64; 2]]) -> f64 {
    let next = corners.iter().cycle().skip(1);
    corners.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area_of(polygon: &[f64]) -> f64 {
        let corners: Vec<[f64; 2]> = polygon.chunks_exact(2).map(|xy| [xy[0], xy[1]]).collect();
        signed_area(&corners).abs()
    }

    #[test]
    fn a_corner_cut_off_by_hand() {
        let triangle = [0.0, 0.0, 4.0, 0.0, 0.0, 4.0];
        let clipped = clip_to_rectangle(&triangle, [0.0, 0.0, 2.0, 10.0]).unwrap();
        // 8, less the triangle of legs 2 that is cut off.
        assert_eq!(area_of(&clipped), 6.0);
        assert_eq!(clip_to_rectangle(&triangle, [5.0, 5.0, 9.0, 9.0]), None);
        assert_eq!(clip_to_rectangle(&[], [0.0, 0.0, 1.0, 1.0]), None);
    }

    proptest! {
        /// Two halves of the plane hold the whole polygon, and parts lie inside.
        #[test]
        fn parts_add_up(
            polygon in prop::collection::vec(-10.0f64..10.0, 6..20),
            cut in -9.0f64..9.0,
        ) {
            let polygon = &polygon[..polygon.len() / 2 * 2];
            let signed = |corners: Option<Vec<f64>>| {
                let corners = corners.unwrap_or_default();
                let corners: Vec<[f64; 2]> =
                    corners.chunks_exact(2).map(|xy| [xy[0], xy[1]]).collect();
                signed_area(&corners)
            };
            let left = clip_to_rectangle(polygon, [-20.0, -20.0, cut, 20.0]);
            let right = clip_to_rectangle(polygon, [cut, -20.0, 20.0, 20.0]);
            if let Some(left) = &left {
                prop_assert!(left.chunks_exact(2).all(|xy| xy[0] <= cut));
            }
            let whole = signed(Some(polygon.to_vec()));
            // Sums of products of numbers up to 20, twenty of them.
            prop_assert!((signed(left) + signed(right) - whole).abs() < 1e-9);
        }
    }
}

//! Which labelled object, if any, each anchor or proposal stands for.
//!
//! detectron2 `modeling/matcher.py`; torchvision's `Matcher` codes the same as
//! indices −1 (below) and −2 (between).

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Matches boxes to labelled objects by their overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Matcher {
    thresholds: Vec<f64>,
    labels: Vec<i64>,
    allow_low_quality: bool,
}

/// What N boxes were matched to.
#[derive(Debug)]
pub struct Match {
    /// `[N]`, int64: the object that overlaps most, whatever the label (0 where
    /// there are no objects).
    pub object: Tensor,
    /// `[N]`, int64: 1 an object, 0 background, −1 neither.
    pub label: Tensor,
}

impl Matcher {
    /// `labels[i]` (−1, 0 or 1) holds from `thresholds[i − 1]` up to
    /// `thresholds[i]`. With `allow_low_quality`, the boxes that overlap an
    /// object most are its matches, however little that is (ties included).
    ///
    /// # Errors
    /// Thresholds that aren't positive and rising, labels that aren't one more
    /// than they or not −1, 0 or 1.
    pub fn new(thresholds: &[f64], labels: &[i64], allow_low_quality: bool) -> Result<Self> {
        let rising = thresholds.windows(2).all(|pair| pair[0] <= pair[1]);
        if !rising || thresholds.first().is_some_and(|&first| first <= 0.0) {
            return Err(Error::invalid(
                "IoU thresholds",
                format!("{thresholds:?}"),
                "they must be positive and rise",
            ));
        }
        let known = labels.iter().all(|label| (-1..=1).contains(label));
        if !known || labels.len() != thresholds.len() + 1 {
            return Err(Error::invalid(
                "IoU labels",
                format!("{labels:?}"),
                format!("there must be {} of them, each -1, 0 or 1", thresholds.len() + 1),
            ));
        }
        let (thresholds, labels) = (thresholds.to_vec(), labels.to_vec());
        Ok(Self { thresholds, labels, allow_low_quality })
    }

    /// Matches by `iou`, `[M, N]`: each of M objects with each of N boxes. M may
    /// be 0: then all boxes get the lowest label.
    pub fn match_(&self, iou: &Tensor) -> Match {
        let (objects, boxes) = iou.size2().expect("a matrix of overlaps");
        let options = (Kind::Int64, iou.device());
        if objects == 0 || boxes == 0 {
            return Match {
                object: Tensor::zeros([boxes], options),
                label: Tensor::full([boxes], self.labels[0], options),
            };
        }
        let (best, object) = iou.max_dim(0, false);
        let mut label = Tensor::full([boxes], self.labels[0], options);
        for (&threshold, &above) in self.thresholds.iter().zip(&self.labels[1..]) {
            label = label.masked_fill(&best.ge(threshold), above);
        }
        if self.allow_low_quality {
            let (highest, _) = iou.max_dim(1, true);
            label = label.masked_fill(&iou.eq_tensor(&highest).any_dim(0, false), 1);
        }
        Match { object, label }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(allow_low_quality: bool, rows: &[&[f32]]) -> (Vec<i64>, Vec<i64>) {
        let matcher = Matcher::new(&[0.3, 0.7], &[0, -1, 1], allow_low_quality).unwrap();
        let iou = Tensor::from_slice(&rows.concat()).view([rows.len() as i64, -1]);
        let found = matcher.match_(&iou);
        (found.object.try_into().unwrap(), found.label.try_into().unwrap())
    }

    #[test]
    fn thresholds_belong_to_the_upper_label() {
        let (object, label) = run(false, &[&[0.0, 0.25, 0.5, 0.75], &[0.1, 0.2, 0.6, 0.9]]);
        assert_eq!(object, [1, 0, 1, 1]);
        assert_eq!(label, [0, 0, -1, 1]);
        let matcher = Matcher::new(&[0.5], &[0, 1], false).unwrap();
        let label = matcher.match_(&Tensor::from_slice(&[0.5f32, 0.49]).view([1, 2])).label;
        assert_eq!(Vec::<i64>::try_from(label).unwrap(), [1, 0]);
    }

    #[test]
    fn low_quality_matches_keep_their_best_object_and_their_ties() {
        // The second object's best boxes are the first and the third, which
        // overlap the first object more: they become objects, of the first.
        let rows: [&[f32]; 2] = [&[0.25, 0.9, 0.25], &[0.2, 0.1, 0.2]];
        assert_eq!(run(true, &rows), (vec![0, 0, 0], vec![1, 1, 1]));
        assert_eq!(run(false, &rows), (vec![0, 0, 0], vec![0, 1, 0]));
    }

    #[test]
    fn without_objects_all_is_background() {
        let matcher = Matcher::new(&[0.3, 0.7], &[0, -1, 1], true).unwrap();
        let found = matcher.match_(&Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu)));
        assert_eq!(Vec::<i64>::try_from(found.object).unwrap(), [0, 0, 0]);
        assert_eq!(Vec::<i64>::try_from(found.label).unwrap(), [0, 0, 0]);
    }

    #[test]
    fn senseless_thresholds_are_refused() {
        let message = Matcher::new(&[0.7, 0.3], &[0, -1, 1], false).unwrap_err().to_string();
        assert!(message.contains("[0.7, 0.3]"), "{message}");
        assert!(Matcher::new(&[0.5], &[0, 2], false).is_err());
        assert!(Matcher::new(&[0.5], &[0], false).is_err());
        assert!(Matcher::new(&[0.0], &[0, 1], false).is_err());
    }
}

//! How well a classifier does: top-1, top-5, per class, and what it confuses.

mod confusion;
mod report;

use engine::distributed::ProcessGroup;
use tch::{Device, Kind, Tensor};

pub use confusion::{confusion_csv, confusion_picture};
pub use report::{ClassFigures, Report};

/// Classes that a right answer may be among in [`Report::top5`].
const FEW: i64 = 5;

/// Counts right answers batch by batch.
#[derive(Debug)]
pub struct Evaluator {
    names: Vec<String>,
    /// Per class: images, right at once, right among five.
    counts: Vec<[u64; 3]>,
    /// Row by row, images of class `row` taken for class `column`.
    confusion: Vec<u64>,
    /// Sum of the images' cross-entropies.
    loss: f64,
}

impl Evaluator {
    /// Nothing counted yet, for classes of these names.
    pub fn new(names: Vec<String>) -> Self {
        let classes = names.len();
        Self {
            names,
            counts: vec![[0; 3]; classes],
            confusion: vec![0; classes * classes],
            loss: 0.0,
        }
    }

    /// Takes in `logits` `[N, classes]` for images of the classes `truth`.
    ///
    /// # Panics
    /// When the shapes disagree or a class is out of range; both come from the
    /// same data set.
    pub fn add(&mut self, logits: &Tensor, truth: &[usize]) {
        let classes = self.names.len();
        let wide = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let logits = logits.to_device(Device::Cpu).to_kind(wide);
        assert_eq!(logits.size(), [truth.len() as i64, classes as i64], "logits");
        let few = FEW.min(classes as i64);
        let (_, best) = logits.topk(few, 1, true, true);
        let best = Vec::<i64>::try_from(best.contiguous().view([-1])).expect("int64 on the CPU");
        let logs = logits.log_softmax(1, None).to_kind(Kind::Double);
        for (row, (&class, best)) in truth.iter().zip(best.chunks(few as usize)).enumerate() {
            let [images, first, among] = &mut self.counts[class];
            *images += 1;
            *first += u64::from(best[0] == class as i64);
            *among += u64::from(best.contains(&(class as i64)));
            self.confusion[class * classes + best[0] as usize] += 1;
            self.loss -= logs.double_value(&[row as i64, class as i64]);
        }
    }

    /// What all processes have counted, on all of them.
    ///
    /// # Errors
    /// Processes that cannot be reached.
    pub fn gathered(self, world: &ProcessGroup) -> engine::Result<Self> {
        let mut sums: Vec<f64> = self
            .counts
            .iter()
            .flatten()
            .chain(&self.confusion)
            .map(|&count| count as f64)
            .collect();
        sums.push(self.loss);
        world.sum(&mut sums)?;
        let (classes, loss) = (self.names.len(), sums[sums.len() - 1]);
        let whole: Vec<u64> = sums.iter().map(|&sum| sum as u64).collect();
        let counts = whole[..3 * classes].chunks(3).map(|c| [c[0], c[1], c[2]]).collect();
        let confusion = whole[3 * classes..][..classes * classes].to_vec();
        Ok(Self { counts, confusion, loss, ..self })
    }

    /// The figures so far; none if nothing was counted.
    pub fn finish(self) -> Option<Report> {
        let images: u64 = self.counts.iter().map(|[images, ..]| images).sum();
        if images == 0 {
            return None;
        }
        let share = |part: usize| {
            self.counts.iter().map(|counts| counts[part]).sum::<u64>() as f64 / images as f64
        };
        let (top1, top5, loss) = (share(1), share(2), self.loss / images as f64);
        let of_class = |(name, [images, first, among]): (String, [u64; 3])| {
            let share = |right: u64| (images > 0).then(|| right as f64 / images as f64);
            ClassFigures { name, images, top1: share(first), top5: share(among) }
        };
        let classes: Vec<ClassFigures> =
            self.names.into_iter().zip(self.counts).map(of_class).collect();
        Some(Report { images, top1, top5, loss, classes, confusion: self.confusion })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    #[test]
    fn right_answers_are_counted_by_class() {
        let mut evaluator = Evaluator::new(names(7));
        // Descending: the classes 0 to 4 are the first five.
        let row: Vec<f32> = (0..7).map(|class| -(class as f32)).collect();
        let logits = Tensor::from_slice(&row.repeat(4)).view([4, 7]);
        evaluator.add(&logits.narrow(0, 0, 3), &[0, 0, 4]);
        evaluator.add(&logits.narrow(0, 3, 1), &[6]);
        let report = evaluator.finish().unwrap();
        assert_eq!((report.images, report.top1, report.top5), (4, 0.5, 0.75));
        let [zero, four, five] = [0, 4, 5].map(|class: usize| &report.classes[class]);
        assert_eq!((zero.images, zero.top1, zero.top5), (2, Some(1.0), Some(1.0)));
        assert_eq!((four.top1, four.top5), (Some(0.0), Some(1.0)));
        assert_eq!((five.images, five.top1), (0, None));
        assert_eq!((report.count(0, 0), report.count(4, 0), report.count(6, 0)), (2, 1, 1));
        // ln Σ exp(−k) for k in 0..7, plus the class's own number: 0, 0, 4, 6.
        let norm = (0..7).map(|class| (-f64::from(class)).exp()).sum::<f64>().ln();
        assert!((report.loss - (norm + 2.5)).abs() < 1e-6, "{}", report.loss);
    }

    #[test]
    fn of_few_classes_all_are_among_five() {
        let mut evaluator = Evaluator::new(names(2));
        evaluator.add(&Tensor::from_slice(&[1f32, 2.0]).view([1, 2]), &[0]);
        let report = evaluator.finish().unwrap();
        assert_eq!((report.top1, report.top5), (0.0, 1.0));
        assert!(Evaluator::new(names(2)).finish().is_none());
    }
}

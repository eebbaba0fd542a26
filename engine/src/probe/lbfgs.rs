//! L-BFGS ("On the limited memory BFGS method", Liu and Nocedal 1989) with
//! backtracking, for smooth convex functions.

use std::collections::VecDeque;

use tch::Tensor;

/// When to stop, and what to remember.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lbfgs {
    /// Steps at most.
    pub iterations: usize,
    /// Stops where no component of the gradient is larger.
    pub tolerance: f64,
    /// Past steps that the curvature is estimated from.
    pub history: usize,
}

/// Where a minimisation ended.
#[derive(Debug)]
pub struct LbfgsResult {
    /// The point.
    pub at: Tensor,
    /// The function's value there.
    pub value: f64,
    /// Steps made.
    pub iterations: usize,
}

/// Least decrease of a step, as a share of what the slope promises (Armijo).
const SUFFICIENT: f64 = 1e-4;
/// Halvings of a step before the function counts as flat.
const HALVINGS: usize = 40;

/// A step and the change of the gradient over it.
struct Pair {
    step: Tensor,
    change: Tensor,
    /// Their inner product.
    curvature: f64,
}

impl Lbfgs {
    /// Minimises `function`, which gives value and gradient, from `start` (one
    /// dimension) on.
    pub fn minimise(
        &self,
        start: Tensor,
        mut function: impl FnMut(&Tensor) -> (f64, Tensor),
    ) -> LbfgsResult {
        let mut at = start;
        let (mut value, mut gradient) = function(&at);
        let mut pairs: VecDeque<Pair> = VecDeque::new();
        for iteration in 0..self.iterations {
            if gradient.abs().max().double_value(&[]) <= self.tolerance {
                return LbfgsResult { at, value, iterations: iteration };
            }
            let mut direction = direction(&gradient, &pairs);
            let mut slope = dot(&gradient, &direction);
            if slope >= 0.0 {
                // Rounding has spoilt the estimate: down the gradient again.
                pairs.clear();
                direction = -&gradient;
                slope = dot(&gradient, &direction);
            }
            // Without an estimate of the curvature a step of the gradient's
            // length may be far too long.
            let length = gradient.norm().double_value(&[]);
            let first = if pairs.is_empty() { (1.0 / length).min(1.0) } else { 1.0 };
            let tried = (0..HALVINGS).find_map(|halvings| {
                let size = first * 0.5f64.powi(halvings as i32);
                let there = &at + &direction * size;
                let (its, gradient) = function(&there);
                (its <= value + SUFFICIENT * size * slope).then_some((there, its, gradient))
            });
            let Some((there, its, new_gradient)) = tried else {
                return LbfgsResult { at, value, iterations: iteration };
            };
            let (step, change) = (&there - &at, &new_gradient - &gradient);
            let curvature = dot(&step, &change);
            if curvature > 0.0 {
                if pairs.len() == self.history {
                    pairs.pop_front();
                }
                pairs.push_back(Pair { step, change, curvature });
            }
            (at, value, gradient) = (there, its, new_gradient);
        }
        LbfgsResult { at, value, iterations: self.iterations }
    }
}

/// Minus the estimated inverse Hessian times the gradient (the two-loop
/// recursion).
fn direction(gradient: &Tensor, pairs: &VecDeque<Pair>) -> Tensor {
    let mut direction = -gradient;
    let mut shares = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let share = dot(&pair.step, &direction) / pair.curvature;
        direction -= &pair.change * share;
        shares.push(share);
    }
    if let Some(last) = pairs.back() {
        direction *= last.curvature / dot(&last.change, &last.change);
    }
    for (pair, share) in pairs.iter().zip(shares.into_iter().rev()) {
        let back = dot(&pair.change, &direction) / pair.curvature;
        direction += &pair.step * (share - back);
    }
    direction
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.dot(b).double_value(&[])
}

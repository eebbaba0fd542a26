//! Where the levels of a graph's pyramid are.

use super::rules::Analysis;
use super::ssa::{Call, Ssa, ValueId};
use crate::pt2::Program;

/// Strides that a pyramid's levels have.
const STRIDES: std::ops::RangeInclusive<i64> = 4..=32;

/// A level of the pyramid.
#[derive(Debug, Clone)]
pub(super) struct Level {
    /// Its map.
    pub value: ValueId,
    /// The module that makes it.
    pub module: String,
    pub channels: i64,
    pub stride: i64,
}

/// The levels of a graph, and what lies before them.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    /// Finest first.
    pub levels: Vec<Level>,
    /// The last map of the stem, if it is told from the first stage.
    pub stem: Option<ValueId>,
}

/// What is needed to find levels.
pub(super) struct Finder<'a> {
    pub program: &'a Program,
    pub ssa: &'a Ssa,
    pub analysis: &'a Analysis,
    pub image: ValueId,
}

impl Finder<'_> {
    /// The levels that `modules` put out, in that order; of none given those that the graph returns,
    /// if these are several maps of ascending strides; else those that its last output depends on,
    /// for each stride the map that the outermost modules pass on.
    ///
    /// # Errors
    /// A sentence: no such module, or no levels.
    pub fn find(&self, modules: &[String]) -> Result<Levels, String> {
        let tree = Dominators::new(self.ssa, self.image);
        let levels = if modules.is_empty() {
            match self.returned() {
                Some(levels) => levels,
                None => self.dominating(&tree)?,
            }
        } else {
            modules.iter().map(|module| self.of_module(module)).collect::<Result<_, _>>()?
        };
        if levels.windows(2).any(|pair| pair[0].stride >= pair[1].stride) {
            let strides: Vec<i64> = levels.iter().map(|level| level.stride).collect();
            return Err(format!("its stages have strides {strides:?}, which must ascend"));
        }
        let stem = levels.first().and_then(|first| self.stem(&tree, first));
        Ok(Levels { levels, stem })
    }

    /// The value as a level, if it is a map.
    fn level(&self, value: ValueId) -> Option<Level> {
        let layout = &self.analysis.layouts[value];
        let (extent, channels) = match (layout.map_extent(), layout.channels_last_extent()) {
            (Some(extent), _) => (extent, layout.size[1]),
            (None, Some(extent)) => (extent, layout.size[3]),
            _ => return None,
        };
        let stride = self.stride(extent)?;
        Some(Level { value, module: self.module(value).to_owned(), channels, stride })
    }

    /// Pixels per position: where grids are no whole parts of the image, the next power of two.
    fn stride(&self, extent: usize) -> Option<i64> {
        let grid = self.analysis.extents.get(extent);
        if let Some((down, across)) = grid.stride {
            return (down == across).then_some(down);
        }
        let image = self.analysis.extents.get(self.analysis.image);
        let ratio = image.size.0 as f64 / grid.size.0.max(1) as f64;
        Some(1 << ratio.log2().round().max(0.0) as u32)
    }

    /// The module that makes a value.
    fn module(&self, value: ValueId) -> &str {
        match self.ssa.values[value].producer {
            Some(call) => self.module_of_call(&self.ssa.calls[call]),
            None => "",
        }
    }

    fn module_of_call(&self, call: &Call) -> &str {
        &self.program.nodes[call.node].module
    }

    /// What the graph returns, if that is a pyramid.
    fn returned(&self) -> Option<Vec<Level>> {
        let maps: Vec<Level> = self.ssa.outputs.iter().filter_map(|&id| self.level(id)).collect();
        let whole = maps.len() > 1;
        let ascends = maps.windows(2).all(|pair| pair[0].stride < pair[1].stride);
        let powers = maps.iter().all(|map| map.stride.count_ones() == 1);
        // A map of the image's own half is no level that detectors take.
        let levels = maps.into_iter().filter(|map| map.stride >= *STRIDES.start()).collect();
        (whole && ascends && powers).then_some(levels)
    }

    fn dominating(&self, tree: &Dominators) -> Result<Vec<Level>, String> {
        let reached = |id: &&ValueId| tree.depth[**id].is_some();
        let Some(&last) = self.ssa.outputs.iter().rfind(reached) else {
            return Err("its output does not depend on the image".into());
        };
        let best = self.best_of_strides(&tree.chain(last));
        let levels: Vec<Level> =
            best.into_iter().filter(|level| STRIDES.contains(&level.stride)).collect();
        if levels.len() < 2 {
            let found = levels.first().map_or_else(String::new, |level| {
                format!(" (only {} of stride {})", level.module, level.stride)
            });
            return Err(format!(
                "no pyramid of feature maps with strides of 4 to 32 pixels lies on the way to its \
                 output{found}: is it a convolutional network? --stages names the modules whose \
                 outputs are the stages"
            ));
        }
        Ok(levels)
    }

    /// Of a chain of values, for each stride the map that is passed on between the outermost
    /// modules, finest first; of equals the last.
    fn best_of_strides(&self, chain: &[ValueId]) -> Vec<Level> {
        let mut best: Vec<(usize, Level)> = Vec::new();
        for &value in chain {
            let Some(level) = self.level(value) else { continue };
            if value == self.image {
                continue;
            }
            let own = self.module(value);
            let users = self.ssa.calls.iter().filter(|call| Ssa::reads(call).any(|id| id == value));
            let shared = users.map(|call| shared_depth(own, self.module_of_call(call)));
            let depth = shared.max().unwrap_or(0);
            match best.iter_mut().find(|(_, known)| known.stride == level.stride) {
                Some((old, known)) if depth <= *old => (*old, *known) = (depth, level),
                Some(_) => {}
                None => best.push((depth, level)),
            }
        }
        let mut levels: Vec<Level> = best.into_iter().map(|(_, level)| level).collect();
        levels.sort_by_key(|level| level.stride);
        levels
    }

    /// The last map that leaves `module`.
    fn of_module(&self, module: &str) -> Result<Level, String> {
        let within = |path: &str| {
            path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let calls = self.ssa.calls.iter().enumerate();
        let inside = calls.filter(|(_, call)| within(self.module_of_call(call)));
        let made: Vec<ValueId> =
            inside.flat_map(|(_, call)| call.outputs.iter().copied()).collect();
        if made.is_empty() {
            let mut known: Vec<&str> =
                self.program.nodes.iter().map(|node| node.module.as_str()).collect();
            known.dedup();
            known.retain(|path| !path.is_empty());
            known.truncate(12);
            let known = known.join(", ");
            return Err(format!("it has no module {module:?}; its modules begin {known}"));
        }
        let last = made.iter().rev().find_map(|&id| self.level(id));
        let mut level = last.ok_or_else(|| {
            format!("its module {module:?} puts out no map of features [N, C, H, W]")
        })?;
        level.module = module.to_owned();
        Ok(level)
    }

    /// The last map before the first level's stage: of a smaller stride, or, where the first
    /// convolution is as wide as the stage's stride, of the module with that convolution.
    fn stem(&self, tree: &Dominators, first: &Level) -> Option<ValueId> {
        let chain = tree.chain(first.value);
        let finer = self.best_of_strides(&chain);
        if let Some(level) = finer.iter().rev().find(|level| level.stride < first.stride) {
            return Some(level.value);
        }
        let top = |path: &'_ str| path.split('.').next().unwrap_or("").to_owned();
        let maps: Vec<ValueId> =
            chain.into_iter().filter(|&id| id != self.image && self.level(id).is_some()).collect();
        let module = top(self.module(*maps.first()?));
        if module == top(self.module(first.value)) {
            return None;
        }
        maps.into_iter().take_while(|&id| top(self.module(id)) == module).last()
    }
}

/// How many modules two paths have in common from the outermost on; a list counts as one with each
/// of its entries, so that `stages.0` and `stages.1` have nothing in common.
fn shared_depth(a: &str, b: &str) -> usize {
    let entries = |path: &str| {
        let mut entries: Vec<String> = Vec::new();
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let numbered = part.bytes().all(|byte| byte.is_ascii_digit());
            match entries.last_mut().filter(|last| numbered && !last.contains('.')) {
                Some(list) => *list = format!("{list}.{part}"),
                None => entries.push(part.to_owned()),
            }
        }
        entries
    };
    let (a, b) = (entries(a), entries(b));
    a.iter().zip(&b).take_while(|(a, b)| a == b).count()
}

/// The tree of dominators: on every way from the image to a value lies the value above it.
struct Dominators {
    above: Vec<Option<ValueId>>,
    /// None for what does not depend on the image.
    depth: Vec<Option<usize>>,
}

impl Dominators {
    fn new(ssa: &Ssa, image: ValueId) -> Self {
        let count = ssa.values.len();
        let mut tree = Self { above: vec![None; count], depth: vec![None; count] };
        tree.depth[image] = Some(0);
        for call in &ssa.calls {
            // Of these only the shape is read.
            if call.operator.starts_with("new_") || call.operator.ends_with("_like") {
                continue;
            }
            let reached = Ssa::reads(call).filter(|&id| tree.depth[id].is_some());
            let Some(above) = reached.reduce(|a, b| tree.meet(a, b)) else { continue };
            let depth = tree.depth[above].map(|depth| depth + 1);
            for &output in &call.outputs {
                tree.above[output] = Some(above);
                tree.depth[output] = depth;
            }
        }
        tree
    }

    fn meet(&self, mut a: ValueId, mut b: ValueId) -> ValueId {
        while a != b {
            let deeper = if self.depth[a] >= self.depth[b] { &mut a } else { &mut b };
            match self.above[*deeper] {
                Some(above) => *deeper = above,
                None => return *deeper,
            }
        }
        a
    }

    /// From the image to `value`.
    fn chain(&self, value: ValueId) -> Vec<ValueId> {
        let mut chain = vec![value];
        while let Some(above) = self.above[chain[chain.len() - 1]] {
            chain.push(above);
        }
        chain.reverse();
        chain
    }
}

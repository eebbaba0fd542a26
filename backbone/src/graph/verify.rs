//! That visible patches and the whole grid agree on a network.

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::model::GraphModel;
use crate::models::BuildOptions;
use crate::weights::StateDict;
use crate::{DropPathDraws, Error, FeatureMap, Mode, PatchMask, Result};

/// Largest difference, in parts of a stage's largest value, that float64 explains: sums in another
/// order through a hundred layers stay below 1e-10, a wrong operator is of the order of 1.
const TOLERANCE: f64 = 1e-6;
/// Mask patches along each side of the image that is compared.
const PATCHES: (i64, i64) = (2, 3);

impl GraphModel {
    /// Compares, in float64, a pass over patches that are all visible with a pass over the whole
    /// grid, so that an operator whose meaning was mistaken is seen before anything is trained.
    ///
    /// # Errors
    /// A network that runs on whole grids alone; or the two differ.
    pub fn verify(&self) -> Result<()> {
        if let Some(refusal) = self.refusal() {
            return Err(Error::invalid("model", self.name(), refusal));
        }
        let mut store = VarStore::new(Device::Cpu);
        let options = BuildOptions { in_chans: self.in_chans(), ..BuildOptions::default() };
        let network = self.build(&store.root(), &options)?;
        store.double();
        let variables: StateDict = store.variables().into_iter().collect();
        self.load(&variables)?;
        let side = network.total_stride();
        // Not from libtorch's generator, whose state belongs to the run.
        let size = [2, self.in_chans(), PATCHES.0 * side, PATCHES.1 * side];
        let places = Tensor::arange(size.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        let image = ((places * 12.9898).sin() * 43_758.545_3).sin().view(size);
        let mask = PatchMask::all_visible(size[0], PATCHES, Device::Cpu)?;
        let mode = || Mode::train().with_drop_path(DropPathDraws::Off);
        tch::no_grad(|| {
            let whole = network.forward(&FeatureMap::Grid(image.shallow_clone()), &mode())?;
            let packed = network.forward(&FeatureMap::patches(&image, &mask)?, &mode())?;
            for (number, (whole, packed)) in whole.iter().zip(&packed).enumerate() {
                let (whole, packed) = (whole.to_grid(), packed.to_grid());
                let largest = whole.abs().max().double_value(&[]);
                let difference = (packed - whole).abs().max().double_value(&[]);
                // A NaN is a difference, too.
                let equal = difference <= TOLERANCE * largest.max(f64::MIN_POSITIVE);
                if !equal {
                    let rule = format!(
                        "with all patches visible its stage {} must equal the whole grid's, but \
                         they differ by {difference:.1e} where values reach {largest:.1e}: an \
                         operator of it was mistaken. Detection and embedding run it as it is",
                        number + 1
                    );
                    return Err(Error::invalid("model", self.name(), rule));
                }
            }
            Ok(())
        })
    }
}

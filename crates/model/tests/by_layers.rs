//! Gradients of recomputed layers are those of one backward pass.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor};
use iiet_model::{LanguageModel, ParameterVisitor, Role, load, visit_parameters};
use iiet_ode::SolverName::{IterativeImplicitEuler, PredictorCorrector};

/// Sums of gradients by name.
#[derive(Default)]
struct Sums(BTreeMap<String, Vec<f32>>);

struct Add<'a>(&'a mut Sums, Gradients);

impl ParameterVisitor for Add<'_> {
    fn visit<const D: usize>(&mut self, name: &str, _: Role, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = parameter.val().grad(&self.1) else {
            return;
        };
        let values = gradient.try_into_vec_as::<f32>().unwrap();
        match self.0.0.get_mut(name) {
            Some(sum) => sum.iter_mut().zip(values).for_each(|(s, v)| *s += v),
            None => {
                self.0.0.insert(name.to_owned(), values);
            }
        }
    }
}

fn both(model: &LanguageModel, ids: &Tensor<2, Int>) -> [(f32, Sums); 2] {
    let [batch, seq] = ids.dims();
    let targets = ids.clone().flip([1]);
    let weights = || Tensor::<2>::ones([batch, seq], &ids.device());
    let (mut whole, mut parts) = (Sums::default(), Sums::default());
    let loss = model.loss(ids.clone(), targets.clone(), weights());
    visit_parameters(model, &mut Add(&mut whole, loss.backward()));
    let by_layers = model.loss_by_layers(ids.clone(), targets, weights(), |gradients| {
        visit_parameters(model, &mut Add(&mut parts, gradients));
    });
    [
        (loss.into_scalar::<f32>(), whole),
        (by_layers.into_scalar::<f32>(), parts),
    ]
}

#[test]
fn gradients_are_those_of_one_backward_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let device = Device::default();
    let mut cases = 0;
    for case in std::fs::read_dir(folder).unwrap() {
        let path = case.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let (model, config) = load(&path, &device).unwrap();
        let model = model.train();
        let ids: Vec<i64> = (0..2 * 9)
            .map(|i| i * i % config.vocab_size as i64)
            .collect();
        let ids = burn::tensor::TensorData::new::<i64, _>(ids, [2, 9]);
        let ids = Tensor::from_data(ids, &device.clone().autodiff());
        let [(loss, whole), (again, parts)] = both(&model, &ids);
        assert_eq!(loss, again, "{path:?}");
        let names: Vec<_> = parts.0.keys().collect();
        assert!(names.iter().eq(whole.0.keys().collect::<Vec<_>>().iter()));
        for (name, expected) in &whole.0 {
            let found = &parts.0[name];
            let learned = config.solver.name;
            if [PredictorCorrector, IterativeImplicitEuler].contains(&learned) {
                // What layers share, states and alpha, sums its gradients in another order.
                let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                for (a, b) in found.iter().zip(expected) {
                    assert!((a - b).abs() <= 1e-5 * largest, "{path:?} {name}: {a} {b}");
                }
            } else {
                assert!(found == expected, "{path:?} {name}");
            }
        }
        cases += 1;
    }
    assert!(cases >= 6, "{cases}");
}

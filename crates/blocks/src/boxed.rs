//! A module on the heap, which Burn has no `Box` for: the rare and large variant of an enum that models have in
//! thousands.

use std::ops::{Deref, DerefMut};

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

/// A module on the heap. It adds no step to the paths of its parameters.
#[derive(Debug, Clone)]
pub struct Boxed<T>(Box<T>);

impl<T> Boxed<T> {
    /// Moves a module to the heap.
    pub fn new(module: T) -> Self {
        Self(Box::new(module))
    }
}

impl<T> Deref for Boxed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Boxed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Module> Module for Boxed<T> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self::new(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self::new(self.0.to_device(device))
    }

    fn train(self) -> Self {
        Self::new(self.0.train())
    }

    fn valid(&self) -> Self {
        Self::new(self.0.valid())
    }

    fn materialize(self) -> Self {
        Self::new(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self::new(self.0.map(mapper))
    }
}

impl<T: ModuleDisplayDefault> ModuleDisplayDefault for Boxed<T> {
    fn content(&self, content: Content) -> Option<Content> {
        self.0.content(content)
    }
}

impl<T: ModuleDisplay> ModuleDisplay for Boxed<T> {}

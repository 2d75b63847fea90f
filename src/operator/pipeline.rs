//! One pipeline, from what a person asks for to what runs.

pub mod build;
pub mod facts;
pub mod problem;
pub mod status;
pub mod validate;

#[cfg(test)]
mod purity;
#[cfg(test)]
pub(crate) mod test_support;

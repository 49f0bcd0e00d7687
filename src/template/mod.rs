//! What both halves know of a pod template: its digest, containers and probes, quantities, the apps/v1 defaults.
//!
//! Pure: values in, values out. The tree is [`Json`] everywhere, because the review is parsed once, straight into what
//! the Rego engine takes.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod containers;
pub mod defaulter;
pub mod digest;
mod image;
pub mod json;
pub mod keys;
pub mod overriding;
pub mod owner;
pub mod quantity;

pub use containers::{Container, ContainerKind, Handler, Probe};
pub use digest::Digest;
pub use json::Json;
pub use owner::Owner;

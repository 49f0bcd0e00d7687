//! The test bed: a real control plane and a real node, without Docker. The tests and the demo share it.
//!
//! - [`tools`]: the pinned Kubernetes parts, built once into a cache;
//! - [`run`]: the folder, the processes and the end of a run, which comes even when the run is killed;
//! - [`control_plane`]: etcd, API server, controller manager and scheduler; as many side by side as wanted;
//! - [`node`]: kubelet, containerd and a network, where there is root; [`image`] makes what runs on it;
//! - [`inside`]: a cluster in which surefoot runs itself, from its own image, behind its Service;
//! - [`surefoot`]: the program under test, installed and running;
//! - [`kubectl`]: the real one, with what it printed; [`http`]: requests to pods, API server and webhook;
//! - [`watch`]: waiting for something with a limit, never for a fixed time.
#![allow(dead_code, reason = "the tests and the demo share this; neither uses all of it")]

#[path = "../../image/archive.rs"]
pub(crate) mod archive;
pub(crate) mod control_plane;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod inside;
pub(crate) mod kubectl;
pub(crate) mod node;
pub(crate) mod run;
pub(crate) mod simulated;
pub(crate) mod surefoot;
#[path = "../../image/surefoot.rs"]
pub(crate) mod surefoot_image;
pub(crate) mod tools;
pub(crate) mod watch;

#[allow(unused_imports, reason = "as above")]
pub(crate) use self::{
    control_plane::ControlPlane,
    inside::Inside,
    kubectl::{Answer, Kubectl},
    node::Node,
    surefoot::Surefoot,
    watch::{Look, until},
};

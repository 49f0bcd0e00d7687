//! surefoot keeps plain Kubernetes Deployments of machine-learning models safe to roll out.
//!
//! One binary, three jobs: an admission webhook that judges every Deployment by Rego policies, a controller that puts
//! the last good pod template back when a rollout spends its budget of probe failures, and a command line that gives
//! the same verdicts on files.
//!
//! The modules in reading order. The first five are **pure**: values in, values out, no clock, no file, no client, no
//! task (clippy.toml fences them, `tests/it/house.rs` reads their imports). The others are thin rims.
//!
//! | module | what it owns |
//! |---|---|
//! | [`template`] | what both halves know of a pod template: digest, containers, probes, quantities, apps/v1 defaults |
//! | [`config`] | `config.yaml`, typed and checked |
//! | [`admission`] | a review and facts in, a verdict out |
//! | [`rollout`] | what is seen of a rollout, its history and the time in, a decision out |
//! | [`certificates`] | the webhook's certificate: made, and when another is due |
//! | [`cluster`] | client, watches of guarded namespaces, records |
//! | [`webhook`] | the HTTPS server that the API server asks |
//! | [`controller`] | watches → snapshots → decisions → guarded writes |
//! | [`cli`] | arguments, one file for each command, reporters |
//! | [`telemetry`] | logging and metrics |

pub mod admission;
pub mod certificates;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod rollout;
pub mod telemetry;
pub mod template;
pub mod webhook;

//! The HTTPS server that the API server asks: router, TLS, deadline, readiness, drain.

pub mod server;
pub mod tls;

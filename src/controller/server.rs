//! What is asked of the controller itself: `/metrics`, `/healthz`, `/readyz`. Plain HTTP, for the kubelet and Prometheus.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::telemetry::{ControllerMetrics, METRICS_TYPE};

/// Answers for as long as it is polled.
pub async fn serve(listener: TcpListener, metrics: Arc<ControllerMetrics>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(rendered))
        .with_state(metrics);
    axum::serve(listener, router).await
}

/// 200 from the moment all has been listed, for those that stand by too.
async fn ready(State(metrics): State<Arc<ControllerMetrics>>) -> impl IntoResponse {
    match metrics.ready.get() {
        1 => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

async fn rendered(State(metrics): State<Arc<ControllerMetrics>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], metrics.render())
}

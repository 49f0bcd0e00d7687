//! HTTP: which path is which hook, and which status a request gets that cannot be given a verdict.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{
        HeaderValue, Request, StatusCode, Uri,
        header::{CONNECTION, CONTENT_TYPE},
    },
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    App, State as Readiness,
    body::{self, Held},
    review::{Hook, review},
};
use crate::telemetry::{HookLabels, METRICS_TYPE, RefusedLabels};

/// What a hook without `?timeout=` is given; the API server always sends one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// No request is worked on for longer, whatever it says.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that cannot be given a verdict. The API server shows the text to whoever applies.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// One word, for the metric.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }
}

/// All routes: the three hooks, probes, metrics.
pub fn router(app: Arc<App>) -> Router {
    let hook = |hook| post(move |app: State<Arc<App>>, request: Request<Body>| serve_hook(hook, app, request));
    Router::new()
        .route("/validate", hook(Hook::Validate))
        .route("/mutate", hook(Hook::Mutate))
        .route("/scale", hook(Hook::Scale))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(middleware::map_response_with_state(Arc::clone(&app), last_where_stopping))
        .with_state(app)
}

/// From the moment the process is told to stop, each answer is the last of its connection.
async fn last_where_stopping(State(app): State<Arc<App>>, mut response: Response) -> Response {
    if app.state() == Readiness::Stopping {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn serve_hook(hook: Hook, State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let begun = Instant::now();
    let deadline = begun + time_for(request.uri());
    let read = match app.state() {
        Readiness::Starting => {
            let message = "not ready: policies or facts are still being loaded";
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", message))
        }
        _ => body::read(&app.room, request, deadline).await,
    };
    let answered = match read {
        Ok(Held { bytes, room }) => {
            let answered = review(&app, hook, bytes, deadline).await;
            drop(room);
            answered
        }
        Err(refusal) => Err(refusal),
    };
    app.metrics.seconds.get_or_create(&HookLabels { hook: hook.name() }).observe(begun.elapsed().as_secs_f64());
    match answered {
        Ok(answer) => ([(CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(Refusal { status, reason, message }) => {
            app.metrics.refused.get_or_create(&RefusedLabels { reason }).inc();
            match status.is_server_error() {
                true => warn!(hook = hook.name(), status = status.as_u16(), "{message}"),
                false => info!(hook = hook.name(), status = status.as_u16(), "{message}"),
            }
            (status, format!("surefoot: {message}\n")).into_response()
        }
    }
}

/// How long this request may be worked on: `?timeout=3s` less what the answer needs on its way back.
fn time_for(uri: &Uri) -> Duration {
    let asked = uri
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(|text| text.parse::<jiff::SignedDuration>().ok())
        .and_then(|asked| Duration::try_from(asked).ok())
        .filter(|asked| !asked.is_zero())
        .unwrap_or(DEFAULT_TIMEOUT)
        .min(MAX_TIMEOUT);
    asked - (asked / 5).min(Duration::from_millis(300))
}

/// 200 from the moment all is loaded until the process is told to stop.
async fn readyz(State(app): State<Arc<App>>, uri: Uri) -> Response {
    let state = app.state();
    let status = if state == Readiness::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = uri.query().into_iter().flat_map(|query| query.split('&')).any(|pair| pair.starts_with("verbose"));
    let word = match state {
        Readiness::Starting => "starting",
        Readiness::Ready => "ok",
        Readiness::Stopping => "stopping",
    };
    let text = if verbose { format!("{}{word}\n", app.details()) } else { format!("{word}\n") };
    (status, text).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], app.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_given_its_own_time_less_a_margin() {
        for (uri, milliseconds) in [
            ("/validate?timeout=3s", 2700),
            ("/validate?x=y&timeout=1s", 800),
            ("/validate?timeout=500ms", 400),
            ("/validate?timeout=1m30s", 29700),
            ("/validate", 2700),
            ("/validate?timeout=", 2700),
            ("/validate?timeout=-4s", 2700),
            ("/validate?timeout=0s", 2700),
            ("/validate?timeout=soon", 2700),
            ("/validate?timeout=999999999999999h", 29700),
        ] {
            assert_eq!(time_for(&uri.parse().unwrap()), Duration::from_millis(milliseconds), "{uri}");
        }
    }
}

//! HTTP: which path is which hook, and which status a request gets that cannot be given a verdict.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, Request, StatusCode, Uri,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use super::{
    App, State as Readiness,
    review::{Hook, review},
};
use crate::telemetry::{HookLabels, METRICS_TYPE, RefusedLabels};

/// Largest body that is read. The API server takes objects of up to 3 MiB, and an UPDATE has two.
pub const MAX_BODY: usize = 8 << 20;

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
        .with_state(app)
}

async fn serve_hook(hook: Hook, State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let begun = Instant::now();
    let deadline = begun + time_for(request.uri());
    let answered = match body(&app, request, deadline).await {
        Ok(Held { bytes, _room: room }) => {
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

/// The whole body, once it is clear that it is worth reading.
async fn body(app: &App, request: Request<Body>, deadline: Instant) -> Result<Held, Refusal> {
    if app.state() == Readiness::Starting {
        let message = "not ready: policies or facts are still being loaded";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", message));
    }
    if !is_json(request.headers()) {
        let message = "the content type of an AdmissionReview is application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", message));
    }
    let too_large = || {
        let message = format!("the body is larger than {} MiB", MAX_BODY >> 20);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    let mut frames = Limited::new(request.into_body(), MAX_BODY);
    let mut bytes = Vec::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    loop {
        let frame = match timeout_at(deadline, frames.frame()).await {
            Ok(None) => return Ok(Held { bytes: bytes.into(), _room: room }),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Some(Err(_))) => {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "malformed", "the body ended early"));
            }
            Err(_) => {
                let message = "the body did not arrive within the time of the request";
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "slow-body", message));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        let more = timeout_at(deadline, app.room(data.len())).await.ok().flatten().ok_or_else(|| {
            let message = "overloaded: the requests that are being judged fill the memory that is set aside for them";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no-room", message)
        })?;
        match &mut room {
            None => room = Some(more),
            Some(room) => room.merge(more),
        }
        bytes.extend_from_slice(&data);
    }
}

/// A body, and the room that it takes until its request has been answered.
struct Held {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// `application/json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
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

    #[test]
    fn content_types() {
        for (value, good) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jsonp", false),
            ("text/plain", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(is_json(&headers), good, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}

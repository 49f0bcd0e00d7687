//! A stand-in for the API server in unit tests: a function from requests to answers, and watches fed by the test.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures::{StreamExt, channel::mpsc};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame},
};
use kube::client::Body;
use serde_json::Value;

/// What the client asked.
pub(crate) struct Asked {
    /// `GET /api/v1/namespaces?limit=500`, or with `WATCH` where it is one.
    pub(crate) line: String,
    /// `Null` where there was none.
    pub(crate) body: Value,
}

/// What it is told.
pub(crate) enum Answer {
    Json(u16, Value),
    /// One event for each value; the watch ends with the sender.
    Watch(mpsc::UnboundedReceiver<Value>),
    /// No answer, ever.
    Silence,
}

/// An object list of any kind.
pub(crate) fn list(items: &[Value]) -> Answer {
    Answer::Json(
        200,
        serde_json::json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "7"}, "items": items}),
    )
}

/// A refusal.
pub(crate) fn refusal(code: u16, message: &str) -> Answer {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "",
    };
    let status = kube::core::Status::failure(message, reason).with_code(code);
    Answer::Json(code, serde_json::to_value(status).unwrap())
}

/// A client whose requests `answer` answers, one after the other.
pub(crate) fn client(answer: impl FnMut(Asked) -> Answer + Send + 'static) -> kube::Client {
    let answer = Arc::new(Mutex::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let query = request.uri().query().unwrap_or_default();
            let method = if query.contains("watch=true") { "WATCH" } else { request.method().as_str() };
            let line = format!("{method} {}", request.uri().path_and_query().unwrap());
            let bytes = request.into_body().collect().await?.to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let answered = (answer.lock().unwrap())(Asked { line, body });
            let (code, parts) = match answered {
                Answer::Json(code, value) => (code, futures::stream::iter([value]).boxed()),
                Answer::Watch(events) => (200, events.boxed()),
                Answer::Silence => return std::future::pending().await,
            };
            let frames = parts.map(|value| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{value}\n")))));
            Ok::<_, tower::BoxError>(Response::builder().status(code).body(StreamBody::new(frames)).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

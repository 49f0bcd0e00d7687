//! Bodies: how large, how slow, and how many at a time.
//!
//! ```text
//!   head ── type, length ──▶ room for all of it ── read within 2 s ──▶ review ── answered ──▶ room given back
//! ```
//!
//! The room is taken before anything is read: a body never waits half-read for more while it keeps others from theirs. Usual
//! reviews have a room of their own, so that a few large ones, slow or dear, never keep them out.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, Request, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::router::Refusal;

/// Largest body that is read. The API server takes objects of up to 3 MiB, and an UPDATE has two.
pub const MAX_BODY: usize = 8 << 20;

/// Up to this size a body is a usual review: some 10 KiB, or ten times that with everything there is to say.
pub(super) const SMALL: usize = 128 << 10;

/// All larger bodies that are being read or judged together. A tree in memory takes several times what its body does.
const LARGE_ROOM: usize = 3 * MAX_BODY;

/// All small ones: some hundreds of the usual size.
const SMALL_ROOM: usize = MAX_BODY;

/// The API server sends a body at once; 8 MiB take 0.7 s at 100 Mbit/s, slower than any cluster's network. What takes longer
/// has stalled, and room is not kept for it.
const READING: Duration = Duration::from_secs(2);

/// One permit for each byte of the bodies that are being read or judged.
pub(super) struct Room {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self { small: Arc::new(Semaphore::new(SMALL_ROOM)), large: Arc::new(Semaphore::new(LARGE_ROOM)) }
    }
}

impl Room {
    /// Room for a body of this length, as soon as there is.
    async fn take(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let room = if length <= SMALL { &self.small } else { &self.large };
        Arc::clone(room).acquire_many_owned(u32::try_from(length).ok()?).await.ok()
    }
}

/// A body, and the room that it takes until its request has been answered.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) room: OwnedSemaphorePermit,
}

/// The whole body, once it is clear that it is worth reading.
pub(super) async fn read(room: &Room, request: Request<Body>, deadline: Instant) -> Result<Held, Refusal> {
    if !is_json(request.headers()) {
        let message = "the content type of an AdmissionReview is application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", message));
    }
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let length = match announced.map(usize::try_from) {
        // In chunks: it may be as large as any.
        None => MAX_BODY,
        Some(Ok(length)) if length <= MAX_BODY => length,
        Some(_) => return Err(too_large()),
    };
    let room = timeout_at(deadline, room.take(length)).await.ok().flatten().ok_or_else(|| {
        let message = "overloaded: the requests that are being judged fill the memory that is set aside for them";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no-room", message)
    })?;
    let mut frames = Limited::new(request.into_body(), MAX_BODY);
    let until = deadline.min(Instant::now() + READING);
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout_at(until, frames.frame()).await {
            Ok(None) => return Ok(Held { bytes: bytes.into(), room }),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Some(Err(_))) => {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "malformed", "the body ended early"));
            }
            Err(_) => {
                let message = format!("the body did not arrive within {READING:?}, or the time of the request");
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "slow-body", message));
            }
        };
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
}

fn too_large() -> Refusal {
    let message = format!("the body is larger than {} MiB", MAX_BODY >> 20);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
}

/// `application/json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test(start_paused = true)]
    async fn large_bodies_that_never_come_keep_small_ones_out_for_no_time_and_large_ones_for_a_while() {
        let room = Arc::new(Room::default());
        let ask = |length: usize, body: Body, seconds: u64| {
            let request = Request::post("/").header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, length);
            let (room, request) = (Arc::clone(&room), request.body(body).unwrap());
            async move {
                let begun = Instant::now();
                let read = read(&room, request, begun + Duration::from_secs(seconds)).await;
                (read.map(|held| held.bytes.len()).map_err(|refusal| refusal.reason), begun.elapsed())
            }
        };
        let never = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let stalled: Vec<_> = (0..3).map(|_| tokio::spawn(ask(MAX_BODY, never(), 30))).collect();
        tokio::task::yield_now().await;
        assert_eq!(ask(SMALL, Body::from(vec![b' '; SMALL]), 3).await, (Ok(SMALL), Duration::ZERO));
        assert_eq!(ask(SMALL + 1, never(), 1).await.0, Err("no-room"));
        let large = ask(MAX_BODY, Body::from(vec![b' '; MAX_BODY]), 30).await;
        assert_eq!(large, (Ok(MAX_BODY), READING - Duration::from_secs(1)));
        for stalled in stalled {
            assert_eq!(stalled.await.unwrap(), (Err("slow-body"), READING));
        }
    }
}

//! Waits for as long as the API server asks to (`Retry-After`), and a little where it only says that it is busy.
//!
//! An asker may give up in the meantime: a write under a lease has its limit. What remains is the time before which
//! nobody asks for the same again. A watch that ends as soon as it has begun is begun again once a second: whoever follows
//! it does so at once, and would ask without end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{Method, Request, Response};
use kube::{
    Client,
    client::{Body, retry::RetryPolicy},
};
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, retry::Policy};

/// What is asked for: method and path, and whether it is a watch.
type Asked = (Method, String, bool);

/// Between the beginnings of two watches of the same.
const WATCHES_APART: Duration = Duration::from_secs(1);

/// When it may be asked for again.
#[derive(Clone, Default)]
struct Patience(Arc<Mutex<HashMap<Asked, Instant>>>);

/// The same client, which is patient. It retries by itself: the one that is given should not.
pub(super) fn patient(client: Client) -> Client {
    let patience = Patience::default();
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| ask(client.clone(), patience.clone(), request));
    Client::new(service, namespace)
}

async fn ask(client: Client, patience: Patience, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let asked = (request.method().clone(), request.uri().path().to_owned(), is_watch);
    let mut policy = RetryPolicy::server_retry();
    loop {
        patience.wait(&asked).await;
        if is_watch {
            patience.note(asked.clone(), Instant::now() + WATCHES_APART);
        }
        let again = Policy::<_, Response<Body>, _>::clone_request(&mut policy, &request);
        let mut answer = client.send(request).await.map_err(BoxError::from);
        // A body that cannot be sent twice is not: nobody here has one.
        let Some(mut again) = again else { return answer };
        let Some(pause) = policy.retry(&mut again, &mut answer) else { return answer };
        patience.note(asked.clone(), pause.deadline());
        request = again;
    }
}

impl Patience {
    async fn wait(&self, asked: &Asked) {
        while let Some(until) = self.until(asked) {
            sleep_until(until).await;
        }
    }

    fn until(&self, asked: &Asked) -> Option<Instant> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(asked).copied().filter(|until| *until > Instant::now())
    }

    fn note(&self, asked: Asked, until: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, until| *until > Instant::now());
        all.insert(asked, until);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// A server that refuses the first so many requests, and the times at which it was asked.
    fn server(refused: usize) -> (Client, Arc<Mutex<Vec<Instant>>>) {
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            let mut seen = seen.lock().unwrap();
            seen.push(Instant::now());
            let busy = Response::builder().status(429).header("Retry-After", "8").body(Body::empty());
            let answer = if seen.len() <= refused { busy.unwrap() } else { Response::new(Body::empty()) };
            async move { Ok::<_, BoxError>(answer) }
        });
        (patient(Client::new(service, "default")), asked)
    }

    async fn get(client: &Client, path: &str) -> u16 {
        let request = Request::get(path).body(Body::empty()).unwrap();
        client.send(request).await.unwrap().status().as_u16()
    }

    fn waits(asked: &Mutex<Vec<Instant>>) -> Vec<u64> {
        let asked = asked.lock().unwrap();
        asked.iter().map(|at| (*at - asked[0]).as_secs()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_again_when_it_was_told_to() {
        let (client, asked) = server(2);
        assert_eq!(get(&client, "/a").await, 200);
        assert_eq!(waits(&asked), [0, 8, 16]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_and_asks_again_waits_all_the_same() {
        let (client, asked) = server(1);
        for _ in 0..2 {
            assert!(timeout(Duration::from_secs(3), get(&client, "/a")).await.is_err());
        }
        assert_eq!(get(&client, "/b").await, 200, "something else need not wait");
        assert_eq!(get(&client, "/a").await, 200);
        assert_eq!(waits(&asked), [0, 6, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_at_once_is_begun_once_a_second() {
        let (client, asked) = server(0);
        for path in ["/a", "/a?watch=true", "/a?watch=true", "/a?watch=true", "/b?watch=true", "/a", "/a"] {
            assert_eq!(get(&client, path).await, 200);
        }
        assert_eq!(waits(&asked), [0, 0, 1, 2, 2, 2, 2]);
    }
}

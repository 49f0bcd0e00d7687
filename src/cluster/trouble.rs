//! Errors that last: said once when they begin and once when they end, however many watches meet them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{info, warn};

/// The errors that some watch is meeting now, with the number of watches that do.
#[derive(Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<HashMap<String, usize>>>);

impl Troubles {
    /// A place to note the errors of one watch.
    pub(super) fn of_one_watch(&self) -> Trouble {
        Trouble { all: self.clone(), now: None }
    }

    fn begin(&self, text: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watches = all.entry(text.to_owned()).or_default();
        if *watches == 0 {
            warn!("{text}; trying again until it works");
        }
        *watches += 1;
    }

    /// One watch meets it no more; whether none does.
    fn end(&self, text: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watches) = all.get_mut(text) else { return false };
        *watches -= 1;
        let last = *watches == 0;
        if last {
            all.remove(text);
        }
        last
    }
}

/// The error that one watch is meeting. When its watch is no longer wanted (the namespace is no longer guarded, the process
/// ends) it goes without a word: nobody knows whether it is over.
pub(super) struct Trouble {
    all: Troubles,
    now: Option<String>,
}

impl Trouble {
    pub(super) fn meet(&mut self, text: String) {
        if self.now.as_ref() != Some(&text) {
            self.all.begin(&text);
            self.over();
            self.now = Some(text);
        }
    }

    pub(super) fn over(&mut self) {
        if let Some(text) = self.now.take()
            && self.all.end(&text)
        {
            info!("over: {text}");
        }
    }

    pub(super) fn lasts(&self) -> bool {
        self.now.is_some()
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        if let Some(text) = self.now.take() {
            self.all.end(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_many_watches_is_one() {
        let all = Troubles::default();
        let count = |text: &str| all.0.lock().unwrap().get(text).copied();
        let (mut one, mut other) = (all.of_one_watch(), all.of_one_watch());
        one.meet("away".into());
        one.meet("away".into());
        other.meet("away".into());
        assert_eq!(count("away"), Some(2));
        one.meet("no right".into());
        assert_eq!((count("away"), count("no right")), (Some(1), Some(1)));
        drop(other);
        one.over();
        assert!(!one.lasts() && count("away").is_none() && count("no right").is_none());
    }
}

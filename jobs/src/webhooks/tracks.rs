use std::collections::{HashSet, VecDeque};

/// What one run has in hand and has not begun. Of things about one object the first goes first, and the next not before
/// that one has ended.
pub(super) struct Tracks<T> {
    waiting: VecDeque<(String, T)>,
    under_way: HashSet<String>,
}

impl<T> Tracks<T> {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), under_way: HashSet::new() }
    }

    pub(super) fn push(&mut self, object: String, thing: T) {
        self.waiting.push_back((object, thing));
    }

    /// The first whose object has nothing under way.
    pub(super) fn begin(&mut self) -> Option<(String, T)> {
        let place = self.waiting.iter().position(|(object, _)| !self.under_way.contains(object))?;
        let (object, thing) = self.waiting.remove(place)?;
        self.under_way.insert(object.clone());
        Some((object, thing))
    }

    pub(super) fn ended(&mut self, object: &str) {
        self.under_way.remove(object);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// All that was not begun.
    pub(super) fn give_back(&mut self) -> impl Iterator<Item = T> + '_ {
        self.waiting.drain(..).map(|(_, thing)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_one_object_go_one_after_the_other_and_others_beside_them() {
        let mut tracks = Tracks::new();
        for (object, thing) in [("a", 1), ("a", 2), ("b", 3), ("a", 4)] {
            tracks.push(object.to_owned(), thing);
        }
        assert_eq!(tracks.begin(), Some(("a".to_owned(), 1)));
        assert_eq!(tracks.begin(), Some(("b".to_owned(), 3)));
        assert_eq!(tracks.begin(), None);
        tracks.ended("a");
        assert_eq!(tracks.begin(), Some(("a".to_owned(), 2)));
        assert_eq!((tracks.waiting(), tracks.give_back().collect::<Vec<_>>()), (1, vec![4]));
        assert_eq!(tracks.begin(), None);
    }
}

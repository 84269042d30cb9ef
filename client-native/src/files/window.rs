//! How many chunks are under way: one more while answers come soon, half as
//! many when they come late or not at all, so that a fast link is filled and a
//! slow one holds nothing up behind a file.

use std::time::Duration;

/// Answers that come within this let the window grow.
const SOON: Duration = Duration::from_secs(1);

/// Answers that take longer than this let it shrink.
const LATE: Duration = Duration::from_secs(8);

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    most: usize,
    /// Answers since it last grew.
    answered: usize,
}

impl Window {
    /// Two at first, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            size: most.min(2),
            most,
            answered: 0,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A chunk was answered after so long.
    pub(super) fn answered(&mut self, after: Duration) {
        if after > LATE {
            return self.failed();
        }
        self.answered += usize::from(after <= SOON);
        if self.answered >= self.size {
            self.size = (self.size + 1).min(self.most);
            self.answered = 0;
        }
    }

    /// A chunk was not answered, or refused for now.
    pub(super) fn failed(&mut self) {
        self.size = (self.size / 2).max(1);
        self.answered = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_answers_come_soon_and_shrinks_when_they_do_not() {
        let mut window = Window::new(16);
        for _ in 0..1_000 {
            window.answered(Duration::from_millis(5));
        }
        assert_eq!(window.size(), 16);
        window.failed();
        assert_eq!(window.size(), 8);
        for _ in 0..100 {
            window.answered(Duration::from_secs(3));
        }
        assert_eq!(window.size(), 8, "neither soon nor late");
        for _ in 0..100 {
            window.answered(Duration::from_secs(60));
        }
        assert_eq!(window.size(), 1);
        window.answered(Duration::ZERO);
        assert_eq!(window.size(), 2);
    }
}

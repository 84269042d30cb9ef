//! Whose request is read for next: of those who wait, the first of the device
//! for which the fewest are being read. So whoever asks much has all readers
//! while nobody else asks, and nobody waits behind all that one device asks.

use std::collections::{BTreeMap, VecDeque};

use sotto_proto::DeviceId;

/// Requests that are being read for or wait for it.
const ALL: usize = 256;
/// The same of one device.
const PER_DEVICE: usize = 8;

/// Requests of type `T`.
#[derive(Debug)]
pub struct Turns<T> {
    waiting: VecDeque<(DeviceId, T)>,
    /// How many are being read for.
    reading: BTreeMap<DeviceId, usize>,
}

impl<T> Turns<T> {
    /// Nobody waits.
    pub fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            reading: BTreeMap::new(),
        }
    }

    /// Lets a request wait for its turn.
    ///
    /// # Errors
    /// With the request, when too many wait.
    pub fn wait(&mut self, device: DeviceId, request: T) -> Result<(), T> {
        let own = self.waiting.iter().filter(|(other, _)| *other == device);
        let own = own.count() + self.reading_for(device);
        let all = self.waiting.len() + self.reading.values().sum::<usize>();
        if all >= ALL || own >= PER_DEVICE {
            return Err(request);
        }
        self.waiting.push_back((device, request));
        Ok(())
    }

    /// The next request; from now on it is read for.
    pub fn next(&mut self) -> Option<(DeviceId, T)> {
        let turns = self.waiting.iter().enumerate();
        let (index, _) = turns.min_by_key(|(_, (device, _))| self.reading_for(*device))?;
        let (device, request) = self.waiting.remove(index)?;
        *self.reading.entry(device).or_default() += 1;
        Some((device, request))
    }

    /// A request of this device has been answered.
    pub fn done(&mut self, device: DeviceId) {
        if let Some(reading) = self.reading.get_mut(&device) {
            *reading = reading.saturating_sub(1);
            if *reading == 0 {
                self.reading.remove(&device);
            }
        }
    }

    /// Nothing is read for any more, as far as is known.
    pub fn forget_readings(&mut self) {
        self.reading.clear();
    }

    fn reading_for(&self, device: DeviceId) -> usize {
        self.reading.get(&device).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId::try_from(&[number; 16][..]).unwrap()
    }

    #[test]
    fn who_asks_much_does_not_keep_others_waiting() {
        let mut turns = Turns::new();
        for greedy in 1..=2 {
            for request in 0..PER_DEVICE {
                turns.wait(device(greedy), request).unwrap();
            }
            assert_eq!(turns.wait(device(greedy), 8), Err(8));
        }
        // Nobody else asks: they have what there is, one after the other.
        for expected in [1, 2, 1, 2] {
            assert_eq!(turns.next().unwrap().0, device(expected));
        }
        turns.wait(device(3), 0).unwrap();
        assert_eq!(turns.next().unwrap().0, device(3));
        turns.done(device(1));
        turns.done(device(1));
        assert_eq!(turns.next().unwrap(), (device(1), 2));
        // Those that are being read for count.
        assert!(turns.wait(device(2), 8).is_err());
        turns.done(device(2));
        turns.wait(device(2), 8).unwrap();
    }

    #[test]
    fn no_more_wait_than_there_is_place_for() {
        let mut turns = Turns::new();
        for number in 0..ALL {
            let number = u8::try_from(number).unwrap();
            turns.wait(device(number), ()).unwrap();
        }
        turns.next().unwrap();
        assert_eq!(turns.wait(device(0), ()), Err(()));
        turns.done(device(0));
        turns.wait(device(0), ()).unwrap();
    }
}

//! Loads by formula. Rates are items per second, times are seconds.

use super::{Load, LoadError, refused};
use crate::random::Random;

/// The generators, each with its numbers.
pub const GENERATORS: &str = "constant:RATE, poisson:RATE, step:LOW,HIGH,AT, sine:MEAN,AMPLITUDE,PERIOD, burst:BASE,PEAK,EVERY,LENGTH, batch:COUNT,EVERY";

const SECOND_MS: i64 = 1000;

pub(super) fn generate(text: &str, duration_ms: i64, random: &mut Random) -> Result<Load, LoadError> {
    let unknown = || refused(format!("{text:?} is no generator; the generators are {GENERATORS}"));
    let (name, numbers) = text.split_once(':').ok_or_else(unknown)?;
    let numbers: Result<Vec<f64>, _> = numbers.split(',').map(|number| number.trim().parse::<f64>()).collect();
    let numbers = numbers.map_err(|error| refused(format!("{text:?}: {error}")))?;
    if numbers.iter().any(|number| !number.is_finite() || *number < 0.0) {
        return Err(refused(format!("{text:?}: numbers must be 0 or more")));
    }
    if !(SECOND_MS..=366 * 86_400 * SECOND_MS).contains(&duration_ms) {
        return Err(refused("the duration must be 1 s to 366 days"));
    }
    let mut load = Load { name: text.to_owned(), arrivals_ms: Vec::new(), duration_ms };
    let positive = |number: f64| {
        if number >= 1.0 { Ok(number) } else { Err(refused(format!("{text:?}: a period must be 1 or more"))) }
    };
    let rate: Box<dyn Fn(f64) -> f64> = match (name, numbers.as_slice()) {
        ("constant", [rate]) => {
            constant(&mut load, *rate)?;
            return Ok(load);
        }
        ("poisson", [rate]) => {
            poisson(&mut load, *rate, random)?;
            return Ok(load);
        }
        ("batch", [count, every]) => {
            let every = (positive(*every)? * 1000.0) as i64;
            let mut at = 0;
            while at < duration_ms {
                load.spread(at, 1, *count, random)?;
                at += every;
            }
            return Ok(load);
        }
        ("step", [low, high, at]) => {
            let (low, high, at) = (*low, *high, *at);
            Box::new(move |second| if second < at { low } else { high })
        }
        ("sine", [mean, amplitude, period]) => {
            let (mean, amplitude, period) = (*mean, *amplitude, positive(*period)?);
            Box::new(move |second| (mean - amplitude * (second / period * std::f64::consts::TAU).cos()).max(0.0))
        }
        ("burst", [base, peak, every, length]) => {
            let (base, peak, every, length) = (*base, *peak, positive(*every)?, *length);
            // The first burst comes half a period in, so that there is a before.
            Box::new(move |second| if (second + every / 2.0) % every < length { peak } else { base })
        }
        _ => return Err(unknown()),
    };
    for second in 0..duration_ms / SECOND_MS {
        load.spread(second * SECOND_MS, SECOND_MS, rate(second as f64), random)?;
    }
    Ok(load)
}

fn constant(load: &mut Load, rate: f64) -> Result<(), LoadError> {
    if rate * load.duration_ms as f64 / 1000.0 > super::MAX_ARRIVALS as f64 {
        return Err(refused(format!("the load has more than {} items", super::MAX_ARRIVALS)));
    }
    let count = (rate * load.duration_ms as f64 / 1000.0) as i64;
    load.arrivals_ms.extend((0..count).map(|index| (index as f64 * 1000.0 / rate) as i64));
    Ok(())
}

fn poisson(load: &mut Load, rate: f64, random: &mut Random) -> Result<(), LoadError> {
    if rate == 0.0 {
        return Ok(());
    }
    let mut at = 0.0;
    loop {
        at += -(1.0 - random.unit()).ln() * 1000.0 / rate;
        if at >= load.duration_ms as f64 {
            return Ok(());
        }
        if load.arrivals_ms.len() >= super::MAX_ARRIVALS {
            return Err(refused(format!("the load has more than {} items", super::MAX_ARRIVALS)));
        }
        load.arrivals_ms.push(at as i64);
    }
}

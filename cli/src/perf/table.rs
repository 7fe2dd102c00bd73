//! The table, to the column as nccl-tests prints it: people and scripts read it.

use std::fmt::Write;

/// The two-line head of the columns with its units, and empty comment lines around as nccl-tests has them.
pub const HEAD: &str = "\
#
#                                                              out-of-place                       in-place          \n\
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong \n\
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)         \n";

/// What was measured of one way of calling: out of place or in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Half {
    /// Microseconds of one call.
    pub time_us: f64,
    /// Bytes of a rank's data over the time, in GB/s, where GB is 1e9 bytes.
    pub algorithm_bandwidth: f64,
    /// What a link carries by the collective's nature, in GB/s.
    pub bus_bandwidth: f64,
    /// Wrong elements over all ranks, if they were counted.
    pub wrong: Option<u64>,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Bytes of a rank's data.
    pub bytes: u64,
    /// Elements of a rank's data.
    pub count: u64,
    /// nccl-tests' name of the type.
    pub data_type: &'static str,
    /// The operator's name, "none" where there is none.
    pub op: &'static str,
    /// The root, where there is one; else -1 is printed.
    pub root: Option<u32>,
    /// With input and output apart.
    pub out_of_place: Option<Half>,
    /// With one buffer for both.
    pub in_place: Option<Half>,
}

impl Row {
    /// The columns before the times.
    fn head(&self) -> String {
        let root = self.root.map_or(-1, i64::from);
        format!("{:>12}  {:>12}  {:>8}  {:>6}  {root:>6}", self.bytes, self.count, self.data_type, self.op)
    }

    /// The line, without its end.
    pub fn line(&self) -> String {
        let mut line = self.head();
        for half in [&self.out_of_place, &self.in_place] {
            let [time, algorithm, bus, wrong] = match half {
                Some(half) => [
                    fitted(half.time_us, 7),
                    fitted(half.algorithm_bandwidth, 6),
                    fitted(half.bus_bandwidth, 6),
                    half.wrong.map_or_else(|| "N/A".into(), |wrong| shortest(wrong as f64)),
                ],
                None => ["N/A"; 4].map(String::from),
            };
            let _ = write!(line, "  {time:>7}  {algorithm:>6}  {bus:>6}  {wrong:>6}");
        }
        line
    }
}

/// The lines after the table: whether all was right, and the average of all bus bandwidths.
pub fn foot(wrong: u64, bandwidth: f64) -> String {
    let verdict = if wrong == 0 { "OK" } else { "FAILED" };
    format!(
        "# Out of bounds values : {wrong} {verdict}\n# Avg bus bandwidth    : {} \n#\n",
        shortest(bandwidth)
    )
}

/// `value` in at most `width` characters: with two digits after the point, or as many of them as fit, or with an
/// exponent.
fn fitted(value: f64, width: usize) -> String {
    let mut forms = [2, 1, 0].iter().map(|&digits| format!("{value:.digits$}"));
    forms.find(|form| form.len() <= width).unwrap_or_else(|| {
        let digits = usize::from(width > 6);
        with_exponent(value, digits)
    })
}

/// C's `%.*e`: a sign and at least two digits in the exponent.
fn with_exponent(value: f64, digits: usize) -> String {
    let form = format!("{value:.digits$e}");
    match form.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
            format!("{mantissa}e{sign}{exponent:0>2}")
        }
        None => form, // not a number, or infinite
    }
}

/// C's `%g`: six significant digits, no zeros at the end, an exponent below 1e-4 and from 1e6.
fn shortest(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let scientific = with_exponent(value, 5);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    let trim = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if (-4..6).contains(&power) {
        trim(&format!("{value:.*}", (5 - power) as usize))
    } else {
        format!("{}e{exponent}", trim(mantissa))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(time_us: f64, algorithm_bandwidth: f64, bus_bandwidth: f64, wrong: Option<u64>) -> Option<Half> {
        Some(Half { time_us, algorithm_bandwidth, bus_bandwidth, wrong })
    }

    #[test]
    fn a_line_is_nccl_tests_line() {
        let row = Row {
            bytes: 33554432,
            count: 8388608,
            data_type: "float",
            op: "sum",
            root: None,
            out_of_place: half(415.23, 80.809, 141.416, Some(0)),
            in_place: half(12345.67, 8.0, 1234.5, Some(3)),
        };
        assert_eq!(
            row.line(),
            "    33554432       8388608     float     sum      -1   415.23   80.81  141.42       0  12345.7    8.00  1234.5       3"
        );
    }

    #[test]
    fn unchecked_and_missing_columns_say_so() {
        let row = Row {
            bytes: 8,
            count: 1,
            data_type: "double",
            op: "none",
            root: Some(3),
            out_of_place: half(0.4, 0.02, 0.02, None),
            in_place: None,
        };
        assert_eq!(
            row.line(),
            "           8             1    double    none       3     0.40    0.02    0.02     N/A      N/A     N/A     N/A     N/A"
        );
        // All columns end where the head's do.
        let head = HEAD.lines().nth(2).unwrap();
        assert_eq!(row.line().len() + 1, head.len());
        for column in ["size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong"] {
            let end = head.find(column).unwrap() + column.len();
            let line = row.line();
            assert!(line.as_bytes()[end - 1] != b' ' && line.as_bytes()[end] == b' ', "{column}");
        }
    }

    #[test]
    fn numbers_fit_their_columns() {
        for (value, width, text) in [
            (0.0, 7, "0.00"),
            (9999.99, 7, "9999.99"),
            (10000.0, 7, "10000.0"),
            (123456.0, 7, "123456"),
            (1234567.4, 7, "1234567"),
            (12345678.0, 7, "1.2e+07"),
            (999.994, 6, "999.99"),
            (999.996, 6, "1000.0"),
            (12345.6, 6, "12346"),
            (12345678.0, 6, "1e+07"),
        ] {
            assert_eq!(fitted(value, width), text);
        }
    }

    #[test]
    fn shortest_is_percent_g() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (12.3456789, "12.3457"),
            (100000.0, "100000"),
            (999999.6, "1e+06"),
            (1234567.0, "1.23457e+06"),
            (0.0001, "0.0001"),
            (0.00001234, "1.234e-05"),
            (2.5e-7, "2.5e-07"),
        ] {
            assert_eq!(shortest(value), text);
        }
    }

    #[test]
    fn the_foot_is_nccl_tests_foot() {
        assert_eq!(foot(0, 12.25), "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 12.25 \n#\n");
        assert!(foot(2, 0.0).starts_with("# Out of bounds values : 2 FAILED\n"));
    }
}

//! Messages of the server log that contain more of a statement than its text: its parameters, its parse tree, or the part of
//! it at which the parser stopped.

use std::ops::Range;

/// What stands before the value of a parameter, after its number: `$3 = 'value'`.
const VALUE: &[u8] = b" = '";

/// Where the values of these parameters stand in a message.
pub fn parameters(message: &[u8], numbers: &[u16]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(found) = message[at..].iter().position(|byte| *byte == b'$') {
        let start = at + found + 1;
        let digits = message[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        at = start + digits;
        let number = std::str::from_utf8(&message[start..at]).ok().and_then(|number| number.parse().ok());
        if number.is_some_and(|number| numbers.contains(&number)) && message[at..].starts_with(VALUE) {
            let value = at + VALUE.len();
            at = end_of_text(message, value);
            ranges.push(value..at);
        }
    }
    ranges
}

/// Where a text in single quotes ends that begins here.
fn end_of_text(message: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < message.len() {
        match (message[at], message.get(at + 1)) {
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return at,
            _ => at += 1,
        }
    }
    message.len()
}

/// Where the constants of a printed parse tree or plan stand: lists of bytes, and texts in double quotes.
pub fn constants(tree: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < tree.len() {
        let close = match tree[at] {
            b'[' => b']',
            b'"' => b'"',
            b'\\' => {
                at += 2;
                continue;
            }
            _ => {
                at += 1;
                continue;
            }
        };
        let start = at + 1;
        at = start;
        while at < tree.len() && tree[at] != close {
            at += if tree[at] == b'\\' { 2 } else { 1 };
        }
        ranges.push(start..at.min(tree.len()));
        at += 1;
    }
    ranges
}

/// Where a message repeats the text from this place on, as far as it does, and how long that is.
pub fn repeated(message: &[u8], text: &[u8]) -> (usize, usize) {
    let common = |at: usize| message[at..].iter().zip(text).take_while(|(one, other)| one == other).count();
    (0..message.len()).map(|at| (at, common(at))).max_by_key(|(_, length)| *length).unwrap_or((0, 0))
}

/// A value in a line of comma-separated ones, and where in the message each of its bytes is, with what comes next as one
/// more.
type Value = (Vec<u8>, Vec<usize>);

fn comma_separated(line: &[u8], places: &[usize]) -> Vec<Value> {
    let mut values = vec![Value::default()];
    let mut quoted = false;
    let mut at = 0;
    while at < line.len() {
        let value = values.last_mut().expect("there is always one");
        match (line[at], line.get(at + 1)) {
            (b'"', Some(b'"')) if quoted => {
                value.0.push(b'"');
                value.1.push(places[at]);
                at += 1;
            }
            (b'"', _) => quoted = !quoted,
            (b',', _) if !quoted => {
                value.1.push(places[at]);
                values.push(Value::default());
            }
            (byte, _) => {
                value.0.push(byte);
                value.1.push(places[at]);
            }
        }
        at += 1;
    }
    values.last_mut().expect("there is always one").1.push(places[line.len()]);
    values
}

/// Where the values of secret parameters stand in a message of pgaudit. `wanted` tells their numbers from the statement's
/// text.
pub fn audited(message: &[u8], wanted: impl Fn(&[u8]) -> Vec<u16>) -> Vec<Range<usize>> {
    /// Values of a message: type, two numbers, class, command, object's type and name, statement, parameters.
    const STATEMENT: usize = 7;
    const PREFIX: &[u8] = b"AUDIT: ";
    let Some(line) = message.strip_prefix(PREFIX) else { return Vec::new() };
    let places: Vec<usize> = (PREFIX.len()..=message.len()).collect();
    let values = comma_separated(line, &places);
    let (Some(statement), Some(parameters)) = (values.get(STATEMENT), values.get(STATEMENT + 1)) else {
        return Vec::new();
    };
    let given = comma_separated(&parameters.0, &parameters.1);
    let secret =
        wanted(&statement.0).into_iter().filter_map(|number| given.get(usize::from(number).checked_sub(1)?));
    let range =
        |(content, places): &Value| Some(*places.first()?..places.get(content.len().checked_sub(1)?)? + 1);
    secret.filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(message: &str, ranges: Vec<Range<usize>>) -> String {
        let mut bytes = message.as_bytes().to_vec();
        for range in ranges {
            bytes[range].fill(b'*');
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn values_of_parameters() {
        let message = "parameters: $1 = 'a', $2 = 'it''s', $12 = 'b', $3 = NULL";
        assert_eq!(
            masked(message, parameters(message.as_bytes(), &[2, 3])),
            "parameters: $1 = 'a', $2 = '*****', $12 = 'b', $3 = NULL"
        );
        assert_eq!(masked("$2 = 'cut off", parameters(b"$2 = 'cut off", &[2])), "$2 = '*******");
        assert_eq!(parameters(b"costs $2 or $ = 'x'", &[2]), []);
    }

    #[test]
    fn constants_of_trees() {
        let tree = "{CONST :constvalue 8 [ 32 0 104 ]} {DEFELEM :defname x :arg \"a\\\"b\" :y 1}";
        assert_eq!(
            masked(tree, constants(tree.as_bytes())),
            "{CONST :constvalue 8 [**********]} {DEFELEM :defname x :arg \"****\" :y 1}"
        );
    }

    #[test]
    fn what_the_parser_quotes() {
        let message = b"syntax error at or near \"'hush'\"";
        assert_eq!(repeated(message, b"'hush' and more"), (25, 6));
        assert_eq!(repeated(b"", b"x"), (0, 0));
    }

    #[test]
    fn audited_parameters() {
        let message =
            "AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT f($1, \"\"a\"\", $2)\",\"a,\"\"hu,sh\"\",c\"";
        assert_eq!(
            masked(
                message,
                audited(message.as_bytes(), |statement| {
                    assert_eq!(statement, b"SELECT f($1, \"a\", $2)");
                    vec![2]
                })
            ),
            message.replace("hu,sh", "*****")
        );
        let message = "AUDIT: SESSION,1,1,READ,SELECT,,,SELECT f($1),hush";
        assert_eq!(
            masked(message, audited(message.as_bytes(), |_| vec![1])),
            message.replace("hush", "****")
        );
        assert_eq!(audited(message.as_bytes(), |_| vec![2, 0]), []);
    }
}

# DBD::Pg: METHOD commit|rollback FILE, where FILE holds a load as JSON.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types);
use JSON::PP;

binmode STDOUT, ':utf8';
$| = 1;
my ($method, $end, $file) = @ARGV;

sub say_line { print join("\t", map { (my $word = $_) =~ s/\s*\n\s*/ /g; $word } @_), "\n" }
sub quoted { join ', ', map { qq("$_") } @_ }

open my $handle, '<:raw', $file or die "$file: $!";
my $load = decode_json(do { local $/; <$handle> });

# NOTICEs of the server come as warnings.
local $SIG{__WARN__} = sub { say_line('notice', $_[0]) };
my $dbh = DBI->connect('dbi:Pg:', undef, undef, { AutoCommit => 1, RaiseError => 1, PrintError => 0, PrintWarn => 1, pg_enable_utf8 => 1 });

my %typed = (
    timestamptz => PG_TIMESTAMPTZ, float8 => PG_FLOAT8, boolean => PG_BOOL, jsonb => PG_JSONB, bigint => PG_INT8, text => PG_TEXT,
);

sub statement {
    my ($table, $ending) = @_;
    my @columns = @{ $table->{columns} };
    my $sth = $dbh->prepare("INSERT INTO $table->{name} (" . quoted(@columns) . ') VALUES (' . join(', ', map { '?' } @columns) . ')' . $ending);
    $sth->bind_param($_ + 1, undef, { pg_type => $typed{ $table->{types}[$_] } }) for 0 .. $#columns;
    return $sth;
}

# JSON's booleans as Perl's.
sub fields { map { JSON::PP::is_bool($_) ? ($_ ? 1 : 0) : $_ } @{ $_[0] } }

sub each_row {
    my ($table, $ending) = @_;
    my $sth = statement($table, $ending);
    for my $row (@{ $table->{rows} }) { $sth->execute(fields($row)) == 1 or die 'not one row' }
}

my %methods = (
    prepared => sub { each_row($_[0], '') },
    upsert => sub {
        my ($table) = @_;
        my %key = map { $_ => 1 } @{ $table->{keys} };
        my $set = join ', ', map { qq("$_" = EXCLUDED."$_") } grep { !$key{$_} } @{ $table->{columns} };
        each_row($table, ' ON CONFLICT (' . quoted(@{ $table->{keys} }) . ") DO UPDATE SET $set");
    },
    array => sub {
        my ($table) = @_;
        my @rows = map { [fields($_)] } @{ $table->{rows} };
        my $count = statement($table, '')->execute_for_fetch(sub { shift @rows });
        $count == @{ $table->{rows} } or die "$count rows";
    },
    copy => sub {
        my ($table) = @_;
        my %escaped = ("\\" => "\\\\", "\n" => "\\n", "\r" => "\\r", "\t" => "\\t");
        $dbh->do("COPY $table->{name} (" . quoted(@{ $table->{columns} }) . ') FROM STDIN');
        for my $row (@{ $table->{rows} }) {
            $dbh->pg_putcopydata(join("\t", map { my $field = $_; defined $field ? $field =~ s/([\\\n\r\t])/$escaped{$1}/gr : '\N' } fields($row)) . "\n");
        }
        $dbh->pg_putcopyend;
    },
);

eval {
    $dbh->begin_work;
    $methods{$method}->($_) for @$load;
    if ($end eq 'rollback') { $dbh->rollback; say_line('rolled back') }
    else { $dbh->commit; say_line('committed') }
    1;
} or do {
    say_line('refused', $DBI::state || $dbh->state, $dbh->errstr // $@);
    $dbh->rollback unless $dbh->{AutoCommit};
};
$dbh->selectall_arrayref('SELECT 1');
say_line('alive');
$dbh->disconnect;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.StringReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import org.postgresql.PGConnection;

/** pgjdbc, and HikariCP: METHOD commit|rollback FILE, where FILE holds a load as JSON. JDBC_OPTIONS are options of the URL. */
public class Load {
    static class Table {
        String name;
        List<String> columns = new ArrayList<>();
        List<String> keys = new ArrayList<>();
        List<String> types = new ArrayList<>();
        JsonArray rows;

        Table(JsonObject json) {
            name = json.get("name").getAsString();
            json.getAsJsonArray("columns").forEach(it -> columns.add(it.getAsString()));
            json.getAsJsonArray("keys").forEach(it -> keys.add(it.getAsString()));
            json.getAsJsonArray("types").forEach(it -> types.add(it.getAsString()));
            rows = json.getAsJsonArray("rows");
        }

        static String quoted(List<String> names) {
            return names.stream().map(it -> '"' + it + '"').collect(Collectors.joining(", "));
        }

        String target() {
            return name + " (" + quoted(columns) + ")";
        }

        String insert() {
            return "INSERT INTO " + target() + " VALUES (" + columns.stream().map(it -> "?").collect(Collectors.joining(", ")) + ")";
        }

        String upsert() {
            return insert() + " ON CONFLICT (" + quoted(keys) + ") DO UPDATE SET "
                + columns.stream().filter(it -> !keys.contains(it)).map(it -> '"' + it + "\" = EXCLUDED.\"" + it + '"').collect(Collectors.joining(", "));
        }

        void bind(PreparedStatement statement, JsonArray row) throws SQLException {
            for (int at = 0; at < row.size(); at++) {
                JsonElement value = row.get(at);
                if (value.isJsonNull()) {
                    statement.setNull(at + 1, types.get(at).equals("timestamptz") ? Types.TIMESTAMP_WITH_TIMEZONE : Types.VARCHAR);
                    continue;
                }
                switch (types.get(at)) {
                    case "timestamptz" -> statement.setObject(at + 1, OffsetDateTime.parse(value.getAsString()));
                    case "float8" -> statement.setDouble(at + 1, value.getAsDouble());
                    case "boolean" -> statement.setBoolean(at + 1, value.getAsBoolean());
                    case "bigint" -> statement.setLong(at + 1, value.getAsLong());
                    // As most programs do: a text, also for jsonb.
                    default -> statement.setString(at + 1, value.getAsString());
                }
            }
        }

        String copyText() {
            StringBuilder text = new StringBuilder();
            for (JsonElement row : rows) {
                List<String> fields = new ArrayList<>();
                for (JsonElement value : row.getAsJsonArray()) {
                    fields.add(value.isJsonNull() ? "\\N" : value.getAsString().replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t"));
                }
                text.append(String.join("\t", fields)).append('\n');
            }
            return text.toString();
        }
    }

    static void say(String... words) {
        System.out.println(java.util.Arrays.stream(words).map(it -> it.replaceAll("\\s*\\n\\s*", " ")).collect(Collectors.joining("\t")));
    }

    static void warnings(SQLWarning warning) {
        for (; warning != null; warning = warning.getNextWarning()) say("notice", warning.getMessage());
    }

    static void batch(Connection connection, Table table, String text) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (JsonElement row : table.rows) {
                table.bind(statement, row.getAsJsonArray());
                statement.addBatch();
            }
            long count = 0;
            for (int each : statement.executeBatch()) count += each == Statement.SUCCESS_NO_INFO ? 1 : each;
            if (count != table.rows.size()) throw new IllegalStateException(count + " rows were inserted");
        }
    }

    static void load(Connection connection, String method, Table table) throws Exception {
        switch (method) {
            case "batch" -> batch(connection, table, table.insert());
            case "upsert" -> batch(connection, table, table.upsert());
            case "keys" -> {
                try (PreparedStatement statement = connection.prepareStatement(table.insert(), table.keys.toArray(new String[0]))) {
                    for (JsonElement row : table.rows) {
                        table.bind(statement, row.getAsJsonArray());
                        statement.executeUpdate();
                        ResultSet keys = statement.getGeneratedKeys();
                        String wanted = row.getAsJsonArray().get(table.columns.indexOf(table.keys.get(0))).getAsString();
                        if (!keys.next() || !keys.getString(1).equals(wanted)) throw new IllegalStateException("another key");
                    }
                }
            }
            case "savepoints" -> {
                // A row that goes away with its savepoint, and a statement that fails and takes only its savepoint with it.
                Savepoint savepoint = connection.setSavepoint();
                try (Statement statement = connection.createStatement()) {
                    statement.executeUpdate("INSERT INTO events (external_id) VALUES ('gone')");
                    connection.rollback(savepoint);
                    try {
                        statement.executeUpdate("INSERT INTO events (external_id, start_time) VALUES ('spoiled', '1800-01-01')");
                        throw new IllegalStateException("a year before 1900 was taken");
                    } catch (SQLException expected) {
                        if (!expected.getSQLState().startsWith("22")) throw expected;
                        connection.rollback(savepoint);
                    }
                }
                batch(connection, table, table.insert());
                connection.releaseSavepoint(savepoint);
            }
            case "copy" -> {
                long count = connection.unwrap(PGConnection.class).getCopyAPI()
                    .copyIn("COPY " + table.target() + " FROM STDIN", new StringReader(table.copyText()));
                if (count != table.rows.size()) throw new IllegalStateException(count + " rows were copied");
            }
            default -> throw new IllegalArgumentException(method);
        }
    }

    static Connection connect(boolean pooled) throws SQLException {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE")
            + "?" + System.getenv().getOrDefault("JDBC_OPTIONS", "");
        if (!pooled) return DriverManager.getConnection(url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url);
        config.setUsername(System.getenv("PGUSER"));
        config.setPassword(System.getenv("PGPASSWORD"));
        config.setMaximumPoolSize(1);
        return new HikariDataSource(config).getConnection();
    }

    public static void main(String[] arguments) throws Exception {
        JsonArray json = new Gson().fromJson(Files.readString(Path.of(arguments[2])), JsonArray.class);
        String method = arguments[0];
        boolean pooled = method.startsWith("pooled ");
        try (Connection connection = connect(pooled)) {
            connection.setAutoCommit(false);
            try {
                for (JsonElement table : json) load(connection, method.replace("pooled ", ""), new Table(table.getAsJsonObject()));
                if (arguments[1].equals("rollback")) {
                    connection.rollback();
                    say("rolled back");
                } else {
                    connection.commit();
                    say("committed");
                }
            } catch (SQLException error) {
                say("refused", error.getSQLState(), error.getMessage());
                connection.rollback();
            }
            warnings(connection.getWarnings());
            try (Statement statement = connection.createStatement()) {
                statement.executeQuery("SELECT 1");
            }
            say("alive");
        }
        System.exit(0);
    }
}

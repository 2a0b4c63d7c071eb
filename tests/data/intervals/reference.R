# Makes the tables beside it: Rscript reference.R (R 4.2.2; mvtnorm 1.1-3, multcomp 1.4-22, clubSandwich 0.5.8). With a folder as argument it
# reads maps.tsv from there and writes the answers there.
suppressMessages({library(mvtnorm); library(multcomp); library(clubSandwich)})
folder <- commandArgs(trailingOnly = TRUE); if (length(folder)) setwd(folder[1])
K <- 4; n <- 14

# Effects of four sessions with unequal variances and correlations, seven of them missing; a covariate
if (!file.exists("maps.tsv")) {
  set.seed(16)
  maps <- merge(data.frame(participant = sprintf("%02d", 1:n), age = round(rnorm(n, 40, 12), 1)), data.frame(session = sprintf("%02d", 1:K)))
  maps <- maps[order(maps$participant, maps$session), ]
  own <- rnorm(n)[as.integer(maps$participant)]; k <- as.integer(maps$session)
  maps$effect <- round(0.3 * k + own * (1 + 0.2 * k) + (0.4 + 0.3 * k) * rnorm(nrow(maps)) + 0.02 * maps$age, 4)
  maps$there <- as.integer(!seq_len(nrow(maps)) %in% c(3, 8, 17, 22, 35, 44, 53))
  write.table(maps, "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
}
maps <- read.table("maps.tsv", sep = "\t", header = TRUE, colClasses = c(participant = "character", session = "character"))
maps$centred <- maps$age - mean(maps$age)
complete <- maps; there <- subset(maps, there == 1)
precise <- GenzBretz(maxpts = 3e5, abseps = 1e-4, releps = 0)
rows <- list()
add <- function(data, question, session, estimate, se, dof, quantile)
  rows[[length(rows) + 1]] <<- data.frame(data, question, session, estimate, se, dof, quantile)

# Quantiles alone: equal correlations, those of a moving average, and of differences, for several numbers of sessions and dof
for (S in c(3, 6)) for (dof in c(5, 13, Inf)) for (kind in c("0.5", "neighbours")) {
  R <- if (kind == "neighbours") toeplitz(c(1, -0.45, rep(0, S - 2))) else diag(S) + as.numeric(kind) * (1 - diag(S))
  set.seed(1); q <- if (is.finite(dof)) qmvt(0.95, tail = "both", df = dof, corr = R, algorithm = precise)$quantile else qmvnorm(0.95, tail = "both", corr = R, algorithm = precise)$quantile
  add("quantile", kind, S, NA, NA, dof, q)
}
# Means of sessions of those who have all (multcomp on the multivariate linear model), and of those who have each (CR2)
wide <- sapply(1:K, function(k) complete$effect[complete$session == sprintf("%02d", k)])
V <- cov(wide) / n; set.seed(1)
fit <- glht(parm(colMeans(wide), V, df = n - 1)); quantile <- attr(confint(fit, level = 0.95)$confint, "calpha")
precisely <- qmvt(0.95, tail = "both", df = n - 1, corr = cov2cor(V), algorithm = precise)$quantile
stopifnot(abs(quantile - precisely) < 2e-2)  # it is simulated less precisely
for (k in 1:K) add("complete", "intercept", k, colMeans(wide)[k], sqrt(V[k, k]), n - 1, precisely)
# a column for each session, and with a covariate one more for each
for (question in c("intercept", "age")) {
  fit <- lm(effect ~ 0 + session + session:centred, there)
  V <- vcovCR(fit, cluster = there$participant, type = "CR2"); own <- if (question == "age") K + 1:K else 1:K
  found <- coef_test(fit, vcov = V, cluster = there$participant, test = "Satterthwaite")[own, ]; set.seed(1)
  V <- as.matrix(V)[own, own]; dof <- floor(min(found$df_Satt))  # qmvt takes whole numbers only
  q <- qmvt(0.95, tail = "both", df = dof, corr = cov2cor(V), algorithm = precise)$quantile
  for (k in 1:K) add("missing", question, k, found$beta[k], found$SE[k], found$df_Satt[k], q)
}
table <- do.call(rbind, rows)
for (column in c("estimate", "se", "dof")) table[[column]] <- sprintf("%.12g", table[[column]])
table$quantile <- sprintf("%.6f", table$quantile)
write.table(table, "answers.tsv", sep = "\t", row.names = FALSE, quote = FALSE)

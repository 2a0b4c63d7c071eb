# Makes the tables beside it: Rscript reference.R (R 4.2.2; clubSandwich 0.5.8, car 3.1-1, nlme 3.1-162). With a folder as
# argument it reads maps.tsv from there and writes the answers there.
suppressMessages(library(car))
source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "..", "marginal.R"))
folder <- commandArgs(trailingOnly = TRUE); if (length(folder)) setwd(folder[1])
K <- 3; voxels <- 1:6; sizes <- c(a = 8, b = 12, c = 10); n <- sum(sizes)

# Maps: two contrasts (x, y) of each participant and session; groups vary unequally, eleven sessions are missing
if (!file.exists("maps.tsv")) {
  set.seed(14)
  people <- data.frame(participant = sprintf("%02d", 1:n), group = rep(names(sizes), sizes), age = round(rnorm(n, 40, 12), 1))
  maps <- merge(people, data.frame(session = sprintf("%02d", 1:K)))
  maps <- maps[order(maps$participant, maps$session), ]
  absent <- c("02-03", "05-02", "09-03", "10-01", "13-02", "14-02", "14-03", "19-03", "22-01", "26-03", "29-02")
  maps$there <- as.integer(!paste(maps$participant, maps$session, sep = "-") %in% absent)
  spread <- c(a = 1.8, b = 1, c = 0.7)[maps$group]
  for (v in voxels) {
    own <- rnorm(n)[as.integer(maps$participant)]; x <- own + rnorm(nrow(maps)); y <- 0.6 * x + own + 1.5 * rnorm(nrow(maps))
    maps[[paste0("x", v)]] <- round(spread * x + v * (0.2 * (maps$group == "b") * as.integer(maps$session) + 0.005 * (maps$age - 40)), 4)
    maps[[paste0("y", v)]] <- round(spread * y + 0.1 * v, 4)
  }
  write.table(maps, "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
}
maps <- read.table("maps.tsv", sep = "\t", header = TRUE, colClasses = c(participant = "character", session = "character"))
maps$centred <- maps$age - mean(maps$age)  # over participants: everybody has a row for each session
people <- maps[!duplicated(maps$participant), c("participant", "group", "age", "centred")]
there <- subset(maps, there == 1)

rows <- list()
add <- function(method, model, maps, sessions, group, voxel, f, numerator, dof, p = pf(f, numerator, dof, lower.tail = FALSE))
  rows[[length(rows) + 1]] <<- data.frame(method, model, maps, sessions, group, voxel, f, numerator, dof, p)

# Weights over sessions, over the cells of groups (and age beside them), and over the two contrasts
over_sessions <- list(mean = rbind(c(1, 1, 1) / 3), difference = rbind(c(-1, 0, 1)), any = rbind(c(-1, 1, 0), c(0, -1, 1)))
differences <- rbind(c(1, -1, 0), c(0, 1, -1))
over_groups <- list(intercept = rbind(c(1, 1, 1) / 3), groups = differences)
with_age <- list(intercept = cbind(over_groups$intercept, 0), groups = cbind(differences, 0), `groups and age` = rbind(cbind(differences, 0), c(0, 0, 0, 1)))
over_maps <- list(x = rbind(c(1, 0)), `x and y` = diag(2))

# Cell means: a column for each session in each group, and one for age in each session
cells <- function(d, age = TRUE) {
  between <- sapply(names(sizes), function(g) as.numeric(d$group == g)); if (age) between <- cbind(between, d$centred)
  within <- sapply(sprintf("%02d", 1:K), function(s) as.numeric(d$session == s))
  do.call(cbind, lapply(1:ncol(between), function(j) between[, j] * within))
}

# --- HTZ: Wald_test of clubSandwich after least squares, of one contrast (x) and of two at once -----------------------
for (v in voxels) for (m in names(over_maps)) {
  several <- m != "x"
  X <- cells(there); y <- there[[paste0("x", v)]]; cluster <- there$participant
  if (several) { X <- kronecker(diag(2), X); y <- c(y, there[[paste0("y", v)]]); cluster <- rep(cluster, 2) }
  for (g in names(with_age)) for (s in names(over_sessions)) {
    weights <- kronecker(with_age[[g]], over_sessions[[s]]); if (several) weights <- kronecker(over_maps[[m]], weights)
    if (nrow(weights) == 1) next
    found <- htz(X, y, cluster, weights)
    add("HTZ, least squares", "group + age", m, s, g, v, found$Fstat, found$df_num, found$df_denom, found$p_val)
  }
}

# --- The marginal strategy as a whole: see marginal.R -----------------------------------------------------------------
for (m in names(over_maps)) for (by_group in c(FALSE, TRUE)) for (age in c(FALSE, TRUE)) {
  kinds <- if (m == "x") "x" else c("x", "y")
  if (m != "x" && !age) next
  values <- lapply(voxels, function(v) as.matrix(there[paste0(kinds, v)])); covariance <- working(cells(there, age), values, there, by_group)
  for (g in if (m == "x" && age) names(with_age) else names(over_groups)) for (s in names(over_sessions)) {
    weights <- kronecker(diag(length(kinds)), kronecker((if (age) with_age else over_groups)[[g]], over_sessions[[s]]))
    if (nrow(weights) == 1) next
    found <- marginal(cells(there, age), values, there$participant, weights, covariance)
    add(if (by_group) "marginal, groups" else "marginal, pooled", if (age) "group + age" else "group", m, s, g, found$voxel, found$f, found$numerator, found$dof)
  }
}

# --- A value for each participant: analysis of variance, Welch's, and multivariate tests of car ----------------------
options(contrasts = c("contr.sum", "contr.poly"))
value_of <- function(name, s) {  # mean of the sessions there are; a difference needs both, any difference all
  wide <- sapply(sprintf("%02d", 1:K), function(k) { d <- maps[maps$session == k, ]; ifelse(d$there == 1, d[[name]], NA) })
  switch(s, mean = cbind(rowMeans(wide, na.rm = TRUE)), difference = cbind(wide[, 3] - wide[, 1]), any = wide %*% t(over_sessions$any))
}
for (v in voxels) {
  for (s in c("mean", "difference")) {
    d <- people; d$y <- value_of(paste0("x", v), s)[, 1]; d <- d[!is.na(d$y), ]; d$group <- factor(d$group)
    type3 <- Anova(lm(y ~ group + centred, data = d), type = "III")
    add("Anova", "group + age", "x", s, "groups", v, type3["group", "F value"], 2, type3["Residuals", "Df"], type3["group", "Pr(>F)"])
    whole <- anova(lm(y ~ 1, data = d), lm(y ~ group + centred, data = d))
    add("anova", "group + age", "x", s, "groups and age", v, whole$F[2], whole$Df[2], whole$Res.Df[2], whole$`Pr(>F)`[2])
    slopes <- Anova(lm(y ~ group * centred, data = d), type = "III")
    add("Anova", "group * age", "x", s, "slopes", v, slopes["group:centred", "F value"], 2, slopes["Residuals", "Df"], slopes["group:centred", "Pr(>F)"])
    for (equal in c(TRUE, FALSE)) {
      found <- oneway.test(y ~ group, data = d, var.equal = equal)
      add(if (equal) "oneway.test, equal" else "oneway.test", "group", "x", s, "groups", v, found$statistic, found$parameter[1], found$parameter[2], found$p.value)
    }
    # a line for each group by itself: Welch's test of three slopes, as of means that have their variances
    lines <- lapply(split(d, d$group), function(own) lm(y ~ centred, data = own))
    made <- do.call(rbind, lapply(names(lines), function(g) {
      free <- df.residual(lines[[g]]); values <- as.vector(scale(seq_len(free + 1))) * sqrt(vcov(lines[[g]])[2, 2] * (free + 1)) + coef(lines[[g]])[2]
      data.frame(group = g, y = values)
    }))
    found <- oneway.test(y ~ group, data = made)
    add("oneway.test", "group * age", "x", s, "slopes", v, found$statistic, found$parameter[1], found$parameter[2], found$p.value)
  }
  # several values for each participant: contrasts, differences of sessions, or both
  for (m in names(over_maps)) for (s in names(over_sessions)) {
    values <- value_of(paste0("x", v), s); if (m != "x") values <- cbind(values, value_of(paste0("y", v), s))
    if (ncol(values) == 1) next
    usable <- complete.cases(values); d <- people[usable, ]; d$group <- factor(d$group); q <- ncol(values); Y <- values[usable, ]
    tested <- linearHypothesis(lm(Y ~ group + centred, data = d), "(Intercept)")  # of one row all four statistics are one test
    roots <- Re(eigen(solve(tested$SSPE, tested$SSPH), only.values = TRUE)$values)
    found <- getFromNamespace("Pillai", "stats")(roots, tested$df, tested$df.residual)
    add("Pillai", "group + age", m, s, "intercept", v, found[2], found[3], found[4])
    # groups a and b with a covariance each: the formula of Krishnamoorthy & Yu (2004)
    own <- lapply(c("a", "b"), function(g) Y[d$group == g, ]); parts <- lapply(own, function(y) cov(y) / nrow(y)); whole <- solve(parts[[1]] + parts[[2]])
    shares <- lapply(parts, `%*%`, whole); difference <- colMeans(own[[1]]) - colMeans(own[[2]])
    nu <- (q + q^2) / sum(mapply(function(B, y) (sum(B * t(B)) + sum(diag(B))^2) / (nrow(y) - 1), shares, own))
    add("Krishnamoorthy & Yu", "group", m, s, "a - b", v, (nu - q + 1) / (nu * q) * drop(difference %*% whole %*% difference), q, nu - q + 1)
  }
}
table <- do.call(rbind, rows)
for (column in c("f", "numerator", "dof", "p")) table[[column]] <- sprintf("%.15g", table[[column]])
write.table(table, "answers.tsv", sep = "\t", row.names = FALSE, quote = FALSE)

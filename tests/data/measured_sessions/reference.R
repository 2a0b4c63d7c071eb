# Makes the tables beside it: Rscript reference.R (R 4.2.2; lmerTest 3.1-3, pbkrtest 0.5.2, clubSandwich 0.5.8, metafor 3.8-1). With
# a folder as argument it reads maps.tsv from there and writes the answers there.
suppressMessages({library(lmerTest); library(metafor)})
source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "..", "marginal.R"))
folder <- commandArgs(trailingOnly = TRUE); if (length(folder)) setwd(folder[1])
K <- 4; voxels <- 1:3; sizes <- c(a = 8, b = 12, c = 9); n <- sum(sizes)

# Maps: sessions at days of each participant's own, a mood in each, fourteen maps missing; groups change at different rates
if (!file.exists("maps.tsv")) {
  set.seed(41)
  people <- data.frame(participant = sprintf("%02d", 1:n), group = rep(names(sizes), sizes), age = round(rnorm(n, 40, 12), 1))
  maps <- merge(people, data.frame(session = sprintf("%02d", 1:K)))
  maps <- maps[order(maps$participant, maps$session), ]
  maps$days <- 30 * as.integer(maps$session) + sample(-12:12, nrow(maps), replace = TRUE) + 5 * as.integer(maps$participant) %% 4
  maps$mood <- round(rnorm(nrow(maps), 5, 2) + 0.02 * maps$days, 1)
  maps$variance <- round(rgamma(nrow(maps), 4, 8) + 0.05, 4)
  absent <- c("01-04", "04-02", "06-03", "09-04", "10-01", "12-03", "15-02", "15-04", "17-01", "19-03", "22-02", "25-04", "27-01", "28-03")
  maps$there <- as.integer(!paste(maps$participant, maps$session, sep = "-") %in% absent)
  for (v in voxels) {
    own <- rnorm(n)[as.integer(maps$participant)]
    maps[[paste0("v", v)]] <- round(c(a = 1.6, b = 1, c = 0.7)[maps$group] * (own + rnorm(nrow(maps))) +
      0.006 * v * maps$days * (maps$group == "b") + 0.1 * maps$mood + 0.01 * v * (maps$age - 40), 4)
  }
  write.table(maps, "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
}
maps <- read.table("maps.tsv", sep = "\t", header = TRUE, colClasses = c(participant = "character", session = "character"))
maps$centred <- maps$age - mean(maps$age)  # over participants: everybody has a row for each session
people <- maps[!duplicated(maps$participant), c("participant", "group", "centred")]
there <- subset(maps, there == 1); there$owner <- factor(there$participant)
level <- function(x) ave(x, there$participant)

rows <- list()
add <- function(method, model, sessions, group, voxel, estimate, se, dof)
  rows[[length(rows) + 1]] <<- data.frame(method, model, sessions, group, voxel, estimate, se, dof, p = 2 * pt(-abs(estimate / se), dof))

# Groups' cells with one line of age, or one for each; what is asked of them
between <- function(d, product) { is_in <- sapply(names(sizes), function(g) as.numeric(d$group == g)); cbind(is_in, if (product) is_in * d$centred else d$centred) }
asked <- function(product) if (product) list(intercept = c(1, 1, 1, 0, 0, 0) / c(3, 3, 3, 1, 1, 1), `b:age - a:age` = c(0, 0, 0, -1, 1, 0)) else
  list(intercept = c(1 / 3, 1 / 3, 1 / 3, 0), `b - a` = c(-1, 1, 0, 0), age = c(0, 0, 0, 1))
# Columns over sessions, weights of the contrast on them, and columns of time without products
square <- (there$days - mean(there$days))^2
dummies <- sapply(sprintf("%02d", 1:K), function(s) as.numeric(there$session == s))
over_time <- list(
  mean = list(columns = dummies, weights = rep(1 / K, K)), difference = list(columns = dummies, weights = c(-1, 0, 0, 1)),
  `linear(days)` = list(columns = cbind(1, there$days - level(there$days)), weights = c(0, 1), more = level(there$days)),
  `quadratic(days)` = list(columns = cbind(1, there$days - level(there$days), square - level(square)), weights = c(0, 0, 1), more = cbind(level(there$days), level(square)))
)
mixed_time <- list(mean = over_time$mean, `linear(days)` = list(columns = cbind(1, there$days), weights = c(0, 1)))
mood <- list(split = cbind(there$mood - level(there$mood), level(there$mood) - mean(level(there$mood))), mixture = cbind(there$mood - mean(there$mood)))
models <- list(
  `group + age` = list(time = over_time, product = FALSE), `group * age` = list(time = over_time[c("mean", "difference")], product = TRUE),
  `group + age + mood` = list(time = over_time, product = FALSE, more = mood$split),
  `group + age + mood, mixture` = list(time = mixed_time, product = FALSE, more = mood$mixture)
)
values <- lapply(voxels, function(v) as.matrix(there[paste0("v", v)]))
for (model in names(models)) for (s in names(models[[model]]$time)) {
  m <- models[[model]]; time <- m$time[[s]]; cells <- between(there, m$product)
  X <- do.call(cbind, lapply(1:ncol(cells), function(j) cells[, j] * time$columns)); p <- ncol(X); X <- cbind(X, time$more, m$more)
  questions <- lapply(asked(m$product), function(g) { w <- numeric(ncol(X)); w[1:p] <- kronecker(g, time$weights); w })
  # of full rank and well scaled, for the search
  decomposed <- qr(X); stopifnot(decomposed$rank == ncol(X)); Q <- qr.Q(decomposed); R <- qr.R(decomposed)[, order(decomposed$pivot)]
  turned <- lapply(questions, function(w) drop(solve(t(R), w)))
  by_group <- if (model == "group + age, mixture") FALSE else c(FALSE, TRUE)
  covariances <- lapply(by_group, function(g) working(X, values, there, g))
  for (g in names(questions)) for (k in seq_along(by_group)) {
    found <- marginal(Q, values, there$participant, rbind(turned[[g]]), covariances[[k]])
    add(if (by_group[k]) "marginal, groups" else "marginal, pooled", model, s, g, found$voxel, found$estimate, found$se, found$dof)
  }
  for (v in voxels) {
    there$y <- there[[paste0("v", v)]]
    random <- lmer(y ~ 0 + Q + (1 | owner), data = there, control = lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-14)))
    for (g in names(questions)) {
      for (ddf in c("Satterthwaite", "Kenward-Roger")) {
        found <- contest1D(random, turned[[g]], ddf = ddf)
        add(ddf, model, s, g, v, found$Estimate, found$`Std. Error`, found$df)
      }
      found <- robust(Q, there$y, there$participant, rbind(turned[[g]]))
      add("CR2, least squares", model, s, g, v, found$Est, found$SE, found$df)
    }
    if (s == "mean") next
    # indicators of participants take the place of what differs between them
    ordinary <- lm(y ~ 0 + X + owner, data = there); beta <- coef(ordinary); usable <- !is.na(beta)
    for (g in names(questions)) {
      w <- numeric(length(beta)); w[1:ncol(X)] <- questions[[g]]; if (any(w[!usable] != 0)) next
      add("lm", model, s, g, v, sum(w[usable] * beta[usable]), sqrt(drop(w[usable] %*% vcov(ordinary, complete = FALSE) %*% w[usable])), ordinary$df.residual)
    }
  }
}

# A value of each participant and its variance: mean, difference, or the coefficient of the participant's own polynomial
weights_of <- function(d, s) switch(s, mean = rep(1 / nrow(d), nrow(d)),
  difference = if (all(c("01", "04") %in% d$session)) (d$session == "04") - (d$session == "01"),
  `linear(days)` = if (nrow(d) > 1) solve(crossprod(cbind(1, d$days)), t(cbind(1, d$days)))[2, ],
  `quadratic(days)` = if (nrow(d) > 2) { X <- cbind(1, d$days - mean(d$days), (d$days - mean(d$days))^2); solve(crossprod(X), t(X))[3, ] })
there$centred_mood <- there$mood - mean(there$mood)
for (s in names(over_time)) {
  own <- split(there, there$participant); own <- own[!sapply(own, function(d) is.null(weights_of(d, s)))]
  for (v in voxels) {
    d <- people[match(names(own), people$participant), ]
    d$y <- sapply(own, function(o) sum(weights_of(o, s) * o[[paste0("v", v)]])); d$variance <- sapply(own, function(o) sum(weights_of(o, s)^2 * o$variance))
    d$mood <- sapply(own, function(o) sum(weights_of(o, s) * o$centred_mood))
    for (model in c("group + age", "group + age + mood", "group * age")) {
      X <- cbind(between(d, model == "group * age"), if (model == "group + age + mood") d$mood)
      ordinary <- lm(y ~ 0 + X, data = d)
      random <- rma(d$y, d$variance, mods = X, intercept = FALSE, method = "REML", test = "knha", control = list(threshold = 1e-14, maxiter = 10000))
      for (g in names(asked(model == "group * age"))) {
        w <- numeric(ncol(X)); w[seq_along(asked(model == "group * age")[[g]])] <- asked(model == "group * age")[[g]]
        add("lm of values", model, s, g, v, sum(w * coef(ordinary)), sqrt(drop(w %*% vcov(ordinary) %*% w)), ordinary$df.residual)
        add("rma", model, s, g, v, sum(w * coef(random)), sqrt(drop(w %*% vcov(random) %*% w)), nrow(d) - ncol(X))
      }
    }
    welch <- t.test(d$y[d$group == "b"], d$y[d$group == "a"])
    add("t.test", "group", s, "b - a", v, -diff(welch$estimate), welch$stderr, welch$parameter)
  }
}
table <- do.call(rbind, rows)
for (column in c("estimate", "se", "dof", "p")) table[[column]] <- sprintf("%.15g", table[[column]])
write.table(table, "answers.tsv", sep = "\t", row.names = FALSE, quote = FALSE)

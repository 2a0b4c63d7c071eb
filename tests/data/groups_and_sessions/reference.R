# Makes the tables beside it: Rscript reference.R (R 4.2.2; clubSandwich 0.5.8, lmerTest 3.1-3, pbkrtest 0.5.2, nlme 3.1-162, car 3.1-1)
suppressMessages({library(clubSandwich); library(lmerTest); library(nlme); library(car)})
set.seed(26)
sizes <- c(a = 6, b = 9, c = 7); voxels <- paste0("v", 1:5); K <- 3
people <- data.frame(participant = sprintf("%02d", 1:22), group = rep(names(sizes), sizes), age = round(rnorm(22, 40, 12), 1))
maps <- merge(people, data.frame(session = sprintf("%02d", 1:K)))
maps <- maps[order(maps$participant, maps$session), ]
maps$mood <- round(rnorm(nrow(maps), 5, 2), 1)
for (v in voxels) {
  own <- rnorm(22); spread <- c(a = 1.6, b = 1, c = 0.7)[maps$group]
  maps[[v]] <- round(spread * (own[as.integer(maps$participant)] + rnorm(nrow(maps))) + 0.3 * as.integer(maps$session), 4)
}
whole <- maps
gone <- with(maps, (session == "03" & participant %in% c("02", "08", "09", "17")) | (session == "02" & participant %in% c("05", "17", "20")) |
  (session == "01" & participant %in% c("11", "21")))
maps$there <- as.integer(!gone)
write.table(maps, "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE)

# Columns of the model: sessions for the constant, each group's sum-to-zero code, and centred age; weights of a contrast are their product
coded <- function(d) {
  centred <- d$age - mean(people$age)
  between <- cbind(1, (d$group == "a") - (d$group == "c"), (d$group == "b") - (d$group == "c"), centred)
  columns <- lapply(1:ncol(between), function(j) sapply(sort(unique(whole$session)), function(s) (d$session == s) * between[, j]))
  matrix(unlist(columns), nrow = nrow(d))
}
over_sessions <- list(mean = rep(1 / 3, 3), difference = c(-1, 0, 1), late = c(-0.5, -0.5, 1))
over_groups <- list(intercept = c(1, 0, 0, 0), `b - a` = c(0, -1, 1, 0), age = c(0, 0, 0, 1))
helmert <- rbind(c(1, -1, 0) / sqrt(2), c(1, 1, -2) / sqrt(6))
rows <- list()
add <- function(...) rows[[length(rows) + 1]] <<- data.frame(..., stringsAsFactors = FALSE)

some <- subset(maps, there == 1); X <- coded(some); some$owner <- factor(some$participant)
fixed <- glsControl(opt = "optim")
for (v in voxels) {
  some$y <- some[[v]]
  plain <- lm(y ~ 0 + X, data = some)
  equal <- gls(y ~ 0 + X, data = some, correlation = corCompSymm(0.45, ~ 1 | participant, fixed = TRUE))
  unequal <- gls(y ~ 0 + X, data = some, correlation = corCompSymm(0.45, ~ 1 | participant, fixed = TRUE),
    weights = varIdent(fixed = c(b = 0.6, c = 0.4), form = ~ 1 | group))
  random <- lmer(y ~ 0 + X + (1 | owner), data = some, control = lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-14)))
  for (g in names(over_groups)) {
    for (s in names(over_sessions)) {
      weights <- matrix(kronecker(over_groups[[g]], over_sessions[[s]]), 1)
      for (name in c("plain", "equal", "unequal")) {
        model <- get(name)
        found <- linear_contrast(model, vcov = vcovCR(model, cluster = some$participant, type = "CR2"), contrasts = weights,
          test = "Satterthwaite", p_values = TRUE)
        add(method = paste0("CR2, ", name), sessions = s, group = g, voxel = v, estimate = found$Est, se = found$SE, dof = found$df, p = found$p_val)
      }
      for (ddf in c("Satterthwaite", "Kenward-Roger")) {
        found <- contest1D(random, as.vector(weights), ddf = ddf)
        add(method = ddf, sessions = s, group = g, voxel = v, estimate = found$Estimate, se = found$`Std. Error`, dof = found$df, p = found$`Pr(>|t|)`)
      }
    }
    weights <- kronecker(matrix(over_groups[[g]], 1), helmert)
    for (name in c("plain", "equal", "unequal")) {
      model <- get(name)
      found <- Wald_test(model, vcov = vcovCR(model, cluster = some$participant, type = "CR2"), constraints = weights, test = "HTZ")
      add(method = paste0("CR2, ", name), sessions = "any", group = g, voxel = v, estimate = found$Fstat, se = NA, dof = found$df_denom, p = found$p_val)
    }
  }

  # ordinary least squares of all maps: sessions, their products, mood within participants, indicators of participants
  some$within <- some$mood - ave(some$mood, some$participant)
  ordinary <- lm(y ~ 0 + X + within + owner, data = some)
  beta <- coef(ordinary); usable <- !is.na(beta)
  for (g in names(over_groups)) for (s in c("difference", "late")) {
    weights <- numeric(length(beta)); weights[1:12] <- kronecker(over_groups[[g]], over_sessions[[s]])
    stopifnot(all(weights[!usable] == 0))
    estimate <- sum(weights[usable] * beta[usable]); se <- sqrt(drop(weights[usable] %*% vcov(ordinary, complete = FALSE) %*% weights[usable]))
    add(method = "lm", sessions = s, group = g, voxel = v, estimate = estimate, se = se, dof = ordinary$df.residual,
      p = 2 * pt(-abs(estimate / se), ordinary$df.residual))
  }

  # everybody with all sessions: multivariate tests and Greenhouse-Geisser's correction, sum-to-zero codes, type III
  wide <- reshape(whole[, c("participant", "group", "age", "session", v)], idvar = c("participant", "group", "age"), timevar = "session", direction = "wide")
  values <- as.matrix(wide[, paste0(v, ".", sprintf("%02d", 1:K))])
  two <- wide$group != "c"
  wide$code <- ifelse(wide$group == "a", 1, -1); wide$centred <- wide$age - mean(wide$age[two])
  model <- lm(values[two, ] ~ code + centred, data = wide[two, ])
  tested <- Anova(model, idata = data.frame(session = factor(1:K)), idesign = ~ session, type = "III", icontrasts = "contr.sum")
  terms <- c(intercept = "session", `a - b` = "code:session", age = "centred:session")
  univariate <- summary(tested, multivariate = FALSE)
  for (g in names(terms)) {
    eigenvalues <- Re(eigen(solve(tested$SSPE[[terms[[g]]]], tested$SSP[[terms[[g]]]]), only.values = TRUE)$values)
    dof <- tested$error.df - (K - 1) + 1
    f <- sum(eigenvalues) * dof / (K - 1)  # one hypothesis: Wilks, Pillai, Hotelling-Lawley and Roy are one test
    add(method = "Hotelling", sessions = "any", group = g, voxel = v, estimate = f, se = NA, dof = dof, p = pf(f, K - 1, dof, lower.tail = FALSE))
    row <- univariate$univariate.tests[terms[[g]], ]
    add(method = "Greenhouse-Geisser", sessions = "any", group = g, voxel = v, estimate = row[["F value"]], se = NA,
      dof = row[["den Df"]] * univariate$pval.adjustments[terms[[g]], "GG eps"], p = univariate$pval.adjustments[terms[[g]], "Pr(>F[GG])"])
  }

  # a line over age for each group by itself: slopes and levels (at age 40) compared by Welch and Satterthwaite
  values <- data.frame(group = wide$group, age = wide$age - 40, y = rowMeans(as.matrix(wide[, paste0(v, ".", sprintf("%02d", 1:K))])))
  lines <- lapply(c("a", "b"), function(g) lm(y ~ age, data = values[values$group == g, ]))
  for (j in 1:2) {
    variances <- sapply(lines, function(one) vcov(one)[j, j]); free <- sapply(lines, df.residual)
    estimate <- coef(lines[[2]])[[j]] - coef(lines[[1]])[[j]]; dof <- sum(variances)^2 / sum(variances^2 / free)
    add(method = "Welch", sessions = "mean", group = c("level b - a", "slope b - a")[j], voxel = v, estimate = estimate, se = sqrt(sum(variances)), dof = dof,
      p = 2 * pt(-abs(estimate / sqrt(sum(variances))), dof))
  }
}
write.table(format(do.call(rbind, rows), digits = 12), "answers.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
